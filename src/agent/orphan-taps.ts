import { closeSync } from 'node:fs';

import { readLinks } from '../native/netlink.ts';
import { openTap, setTapProgram } from '../native/tap.ts';
import type { ControlledVm } from '../vmm/controlled-vm.ts';
import type { Intent } from './intent.ts';

/** No process's descriptor: the tap cannot be opened. */
const none = -1;

/**
 * The taps of an intent whose VM is gone. A persistent tap keeps the gate's program after its VM, and would hold back
 * the frames of whatever opens it next.
 */
export class OrphanTaps {
  readonly #fds: ReadonlyMap<string, number>;

  private constructor(fds: ReadonlyMap<string, number>) {
    this.#fds = fds;
  }

  static open(entry: Intent, present: readonly ControlledVm[]): OrphanTaps {
    const links = readLinks();
    const names = new Set(present.map(({ name }) => name));
    const taps = entry.vms.flatMap(({ name, taps }) => (names.has(name) ? [] : taps));
    const fds = taps.flatMap(({ tap, ifindex }) => {
      // Opening a tap that is gone would make a new one.
      if (!links.some((link) => link.name === tap && link.ifindex === ifindex)) return [];
      const fd = tryOpen(tap);
      return fd === none ? [] : [[tap, fd] as const];
    });
    return new OrphanTaps(new Map(fds));
  }

  fdOf(tap: string): number {
    return this.#fds.get(tap) ?? none;
  }

  /** Takes off whatever program is on them, and lets go. */
  close(): void {
    for (const fd of this.#fds.values()) {
      setTapProgram(fd, null);
      closeSync(fd);
    }
  }
}

/** Takes the program off taps that a restore has closed and that nobody has opened. */
export function unplugTaps(names: readonly string[]): void {
  const present = new Set(readLinks().map(({ name }) => name));
  for (const name of names) {
    const fd = present.has(name) ? tryOpen(name) : none;
    if (fd === none) continue;
    setTapProgram(fd, null);
    closeSync(fd);
  }
}

/** A tap that is in use again belongs to its new user, who put a program of his own on it, or none. */
function tryOpen(name: string): number {
  try {
    return openTap({ name });
  } catch {
    return none;
  }
}
