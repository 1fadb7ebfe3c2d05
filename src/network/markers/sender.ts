import { writeSync } from 'node:fs';
import { isErrno } from '../../native/rtnetlink.ts';
import { vnetHeaderBytes } from '../../native/tap.ts';
import { encodeMarker } from './codec.ts';
import type { MarkerPath } from './paths.ts';
import type { VmPort } from '../vm-port.ts';

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
 * Frames take two ways through a switch: those of flows that it knows, and those that it has to look up, which in one
 * batch are overtaken, or overtake (dp_netdev_input__ in Open vSwitch's lib/dpif-netdev.c). A marker goes each way: its
 * source is the same in every round, or of this round alone.
 */
const lanes = [{ fresh: false }, { fresh: true }];

interface Way {
  readonly fd: number;
  readonly header: Buffer;
  readonly fresh: boolean;
}

/**
 * Writes markers into the descriptors that QEMU writes its frames to, so that they take every turn that the frames
 * of the VM have taken, and stand behind them.
 */
export class MarkerSender {
  readonly #identity: { readonly nonce: Buffer; readonly host: string };
  readonly #ways: ReadonlyMap<string, readonly Way[]>;

  constructor(identity: { nonce: Buffer; host: string }, ports: readonly VmPort[]) {
    this.#identity = identity;
    this.#ways = new Map(ports.map((port) => [port.name, waysOf(port)]));
  }

  /** Sends markers on every path, all its ways. @returns the paths whose ports took them all */
  send(round: number, paths: readonly MarkerPath[]): MarkerPath[] {
    return paths.filter((path) => {
      const ways = this.#ways.get(path.tap) ?? [];
      const taken = ways.filter(({ fd, header, fresh }, part) => {
        const marker = { ...path, ...this.#identity, fresh, round, part, parts: ways.length };
        return write(fd, Buffer.concat([header, encodeMarker(marker)]));
      });
      return taken.length > 0 && taken.length === ways.length;
    });
  }
}

function waysOf(port: VmPort): Way[] {
  return descriptorsOf(port).flatMap((fd) => {
    // All zeros: no checksum and no segmentation is left to do (struct virtio_net_hdr).
    const header = Buffer.alloc(vnetHeaderBytes(fd));
    return lanes.map(({ fresh }) => ({ fd, header, fresh }));
  });
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
