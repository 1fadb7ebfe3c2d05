import { writeSync } from 'node:fs';
import { isErrno } from '../native/rtnetlink.ts';
import { vnetHeaderBytes } from '../native/tap.ts';
import { encodeMarker } from './markers.ts';
import type { MarkerPath } from './marker-paths.ts';
import type { VmPort } from './vm-ports.ts';

const firstRepetitionMs = 5;
const longestRepetitionMs = 250;

/** Links may lose some: how long to wait before each repetition, twice as long every time, until a bound. */
export function* repetitionsMs(boundMs: number): Generator<number, void, void> {
  let delayMs = firstRepetitionMs;
  for (let sumMs = delayMs; sumMs <= boundMs; sumMs += delayMs) {
    yield delayMs;
    delayMs = Math.min(longestRepetitionMs, 2 * delayMs);
  }
}

/** One descriptor for each queue of a tap, twins of QEMU's. */
const descriptorsOf = ({ tapFds }: VmPort): readonly number[] => tapFds;

/**
 * Writes markers into the descriptors that QEMU writes its frames to, so that they take every turn that the frames
 * of the VM have taken, and stand behind them.
 */
export class MarkerSender {
  readonly #identity: { readonly nonce: Buffer; readonly host: string };
  readonly #queues: ReadonlyMap<string, readonly { fd: number; header: Buffer }[]>;

  constructor(identity: { nonce: Buffer; host: string }, ports: readonly VmPort[]) {
    this.#identity = identity;
    this.#queues = new Map(
      ports.map((port) => [
        port.name,
        // All zeros: no checksum and no segmentation is left to do (struct virtio_net_hdr).
        descriptorsOf(port).map((fd) => ({ fd, header: Buffer.alloc(vnetHeaderBytes(fd)) })),
      ]),
    );
  }

  /** Sends a marker on every path. @returns the paths whose ports took it on all of their queues */
  send(round: number, paths: readonly MarkerPath[]): MarkerPath[] {
    return paths.filter((path) => {
      const queues = this.#queues.get(path.tap) ?? [];
      const taken = queues.filter(({ fd, header }, queue) => {
        const marker = { ...path, ...this.#identity, round, queue, queues: queues.length };
        return write(fd, Buffer.concat([header, encodeMarker(marker)]));
      });
      return taken.length > 0 && taken.length === queues.length;
    });
  }
}

/** False: the tap is full, down or gone (tun_get_user in drivers/net/tun.c). */
function write(fd: number, bytes: Buffer): boolean {
  try {
    writeSync(fd, bytes);
    return true;
  } catch (error) {
    if (isErrno(error, 'EBADF')) throw error;
    return false;
  }
}
