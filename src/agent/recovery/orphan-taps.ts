import { closeSync } from 'node:fs';

import { readLinks } from '../../native/netlink.ts';
import { isErrno } from '../../native/rtnetlink.ts';
import { openTap, setTapProgram } from '../../native/tap.ts';
import type { ControlledVm } from '../../vmm/controlled-vm.ts';
import type { Intent } from '../session/intent.ts';

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
      return fd === null ? [] : [[tap, fd] as const];
    });
    return new OrphanTaps(new Map(fds));
  }

  fdsOf(tap: string): number[] {
    const fd = this.#fds.get(tap);
    return fd === undefined ? [] : [fd];
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
    const fd = present.has(name) ? tryOpen(name) : null;
    if (fd === null) continue;
    setTapProgram(fd, null);
    closeSync(fd);
  }
}

/** A tap that is in use again belongs to its new user, who put a program of his own on it, or none. */
function tryOpen(name: string): number | null {
  for (const multiQueue of [false, true]) {
    try {
      return openTap({ name, multiQueue });
    } catch (error) {
      // EINVAL: the device is of the other kind (tun_set_iff in drivers/net/tun.c).
      if (!isErrno(error, 'EINVAL')) return null;
    }
  }
  return null;
}
