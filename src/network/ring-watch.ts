import { readSentFrames, tapRingIsEmpty } from '../native/tap.ts';

interface WatchedPort {
  readonly name: string;
  readonly tapFds: readonly number[];
}

interface Sight {
  readonly empty: boolean;
  readonly readFrames: bigint;
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

  /** Looks again, some time after the first look; @returns whether a port's rings are read */
  look(ports: readonly WatchedPort[]): (port: WatchedPort) => boolean {
    const now = look(ports);
    return ({ name }) => {
      const [first, second] = [this.#before.get(name), now.get(name)];
      if (first === undefined || second === undefined || first.empty || second.empty) return true;
      return first.readFrames !== second.readFrames;
    };
  }
}

function look(ports: readonly WatchedPort[]): Map<string, Sight> {
  const sent = readSentFrames();
  return new Map(
    ports.map(({ name, tapFds }) => [
      name,
      { empty: tapFds.every((fd) => tapRingIsEmpty(fd)), readFrames: sent.get(name) ?? 0n },
    ]),
  );
}
