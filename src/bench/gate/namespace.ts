import { closeSync, openSync, writeFileSync } from 'node:fs';

import { run } from '../../lab/command.ts';
import { readNetworkDrops, sumOfDrops } from '../../lab/network-drops.ts';
import { enterNetworkNamespace, readLinks, setLink } from '../../native/netlink.ts';
import { makePersistentTap, openTap } from '../../native/tap.ts';

export interface BenchTap {
  readonly name: string;
  readonly fd: number;
  readonly ifindex: number;
}

/** Three seconds of what comes for one endpoint. */
const judgeRingFrames = 10_000;

let made = 0;

/** A network namespace that the process lives in for the time of one measurement. */
export class BenchNamespace {
  readonly name: string;
  readonly #home: number;
  readonly #fds: number[] = [];

  private constructor(name: string) {
    this.name = name;
    this.#home = openSync('/proc/thread-self/ns/net', 'r');
  }

  /** Does something inside a new namespace, and removes it whatever happens. */
  static async within<Result>(work: (namespace: BenchNamespace) => Promise<Result>): Promise<Result> {
    const namespace = new BenchNamespace(`staghorn-gate-${process.pid}-${made++}`);
    await run(['ip', 'netns', 'add', namespace.name]);
    try {
      namespace.enter();
      // Devices must be silent by themselves: no router solicitations, no multicast reports.
      for (const scope of ['default', 'all'])
        writeFileSync(`/proc/sys/net/ipv6/conf/${scope}/disable_ipv6`, '1');
      return await work(namespace);
    } finally {
      await namespace.#leave();
    }
  }

  /** For whoever has been in another one meanwhile. */
  enter(): void {
    enterNetworkNamespace(this.path);
  }

  get path(): string {
    return `/run/netns/${this.name}`;
  }

  /** Frames that its switch's packet sockets had no room for or did not send, and that its queues dropped. */
  async drops(switchLog?: string): Promise<number> {
    return sumOfDrops(await readNetworkDrops({ namespace: this.name, switchLog }));
  }

  ifindex(device: string): number {
    const found = readLinks().find(({ name }) => name === device);
    if (found === undefined) throw new Error(`there is no device ${device}`);
    return found.ifindex;
  }

  /** Taps that stay when nobody has them open, and are up. Their rings are the judge's: none may overflow. */
  persistentTaps(names: readonly string[]): Omit<BenchTap, 'fd'>[] {
    for (const name of names) makePersistentTap({ name });
    const taps = bringUp(names.map((name) => ({ name })));
    for (const { ifindex } of taps) setLink({ ifindex, txQueueLen: judgeRingFrames });
    return taps;
  }

  /** Taps that are up. Reading them does not block. */
  taps(count: number): BenchTap[] {
    const opened = Array.from({ length: count }, (_, place) => {
      const name = `sgt${place}`;
      const fd = openTap({ name });
      this.#fds.push(fd);
      return { name, fd };
    });
    return bringUp(opened);
  }

  /** Joins devices by a bridge of the kernel that forwards at once. */
  async bridge(ports: readonly { readonly name: string }[]): Promise<void> {
    await run(['ip', 'link', 'add', 'br0', 'type', 'bridge', 'forward_delay', '0', 'mcast_snooping', '0']);
    await run(['ip', 'link', 'set', 'br0', 'up']);
    for (const { name } of ports) await run(['ip', 'link', 'set', name, 'master', 'br0']);
  }

  async #leave(): Promise<void> {
    for (const fd of this.#fds) closeSync(fd);
    enterNetworkNamespace(`/proc/self/fd/${this.#home}`);
    closeSync(this.#home);
    await run(['ip', 'netns', 'delete', this.name]);
  }
}

function bringUp<Device extends { readonly name: string }>(devices: readonly Device[]) {
  const links = new Map(readLinks().map(({ name, ifindex }) => [name, ifindex]));
  return devices.map((device) => {
    const ifindex = links.get(device.name)!;
    setLink({ ifindex, up: true });
    return { ...device, ifindex };
  });
}
