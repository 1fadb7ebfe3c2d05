import { waitsToRead } from '../native/descriptors.ts';
import { readSentFrames, tapRingIsEmpty } from '../native/tap.ts';

interface WatchedPort {
  readonly name: string;
  readonly tapFds: readonly number[];
  readonly qemuFds?: readonly number[] | undefined;
  readonly pid?: number | undefined;
}

interface Sight {
  readonly empty: boolean;
  readonly readFrames: bigint;
  /** For each descriptor whether QEMU waits for it. */
  readonly waited: readonly boolean[];
}

/** How a port's rings were being read before the cut. */
export interface RingReading {
  /** Somebody reads them, if slowly. */
  readonly isRead: boolean;
  /** Descriptors, by their numbers in QEMU, that it was seen to wait for. */
  readonly waitedFor: ReadonlySet<number>;
}

/**
 * Tells taps that are read, if slowly, from those that nobody reads: a guest that has not brought its NIC up, a VM
 * that its owner has paused. There is no use in waiting for the latter.
 */
export class RingWatch {
  readonly #before: ReadonlyMap<string, Sight>;

  constructor(ports: readonly WatchedPort[]) {
    this.#before = look(ports);
  }

  /** Looks again, some time after the first look. */
  look(ports: readonly WatchedPort[]): (port: WatchedPort) => RingReading {
    const now = look(ports);
    return ({ name, qemuFds = [] }) => {
      const sights = [this.#before.get(name), now.get(name)].filter((sight) => sight !== undefined);
      const [first, second] = sights;
      const stuck = first !== undefined && second !== undefined && !first.empty && !second.empty;
      return {
        isRead: !stuck || first.readFrames !== second.readFrames,
        waitedFor: new Set(qemuFds.filter((_, place) => sights.some(({ waited }) => waited[place] === true))),
      };
    };
  }
}

function look(ports: readonly WatchedPort[]): Map<string, Sight> {
  const sent = readSentFrames();
  return new Map(
    ports.map(({ name, tapFds, qemuFds = [], pid }) => [
      name,
      {
        empty: tapFds.every((fd) => tapRingIsEmpty(fd)),
        readFrames: sent.get(name) ?? 0n,
        waited: (pid === undefined ? null : waitsToRead(pid, qemuFds)) ?? [],
      },
    ]),
  );
}
