import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { closeDescriptor } from '../../native/descriptors.ts';
import {
  duplicatePacketSockets,
  readReceiveBuffer,
  setReceiveBuffer,
  type PacketSocket,
} from '../../native/packet-sockets.ts';
import { daemonPid, runDirectory } from '../../unixctl/index.ts';

const daemon = 'ovs-vswitchd';

/** 21,000 small frames: at 100,000 packets/s a switch may wait for a processor for 0.2 s. Taken only as they wait. */
const largeBytes = 16 * 2 ** 20;

const emptyBoundMs = 500;
const pollMs = 1;

/** What puts a switch's sockets back, also for another process. */
export interface FormerBuffers {
  readonly pid: number;
  readonly sockets: { readonly inode: number; readonly bytes: number }[];
}

interface Entry extends PacketSocket {
  readonly formerBytes: number;
}

/**
 * The buffers of the packet sockets by which Open vSwitch's userspace datapath receives from devices
 * (netdev_linux_rxq_construct in its lib/netdev-linux.c). They hold net.core.rmem_default, some 270 small frames, and
 * drop what comes while the switch waits for a processor for longer; a barrier makes such waits likelier.
 *
 * Invariants: none is made smaller than it was; what was enlarged here is put back once, by `putBack`. Where there is
 * no such socket (the kernel's datapath), or it may not be taken, nothing is done.
 */
export class ReceiveBuffers {
  readonly #pid: number;
  #entries: readonly Entry[];
  #droppedBefore = 0;
  #droppedMeanwhile = 0;

  private constructor(pid: number, entries: readonly Entry[]) {
    this.#pid = pid;
    this.#entries = entries;
  }

  /** Those of some devices, by ifindex, as they are; not those that are large, maybe by another barrier's doing. */
  static async find(devices: Iterable<number>, directory = runDirectory()): Promise<ReceiveBuffers> {
    const wanted = new Set(devices);
    const pid = await daemonPid(daemon, directory).catch(() => 0);
    const entries = entriesOf(await socketsOf(pid), ({ fd, ifindex }) => {
      const { bytes } = readReceiveBuffer(fd);
      return wanted.has(ifindex) && bytes < largeBytes ? bytes : undefined;
    });
    return new ReceiveBuffers(pid, entries);
  }

  /** Those that a process which has died had enlarged. */
  static async adopt({ pid, sockets }: FormerBuffers): Promise<ReceiveBuffers> {
    const known = new Map(sockets.map(({ inode, bytes }) => [inode, bytes]));
    return new ReceiveBuffers(
      pid,
      entriesOf(await socketsOf(pid), ({ inode }) => known.get(inode)),
    );
  }

  /** How they were; null if there are none. */
  get former(): FormerBuffers | null {
    if (this.#entries.length === 0) return null;
    const sockets = this.#entries.map(({ inode, formerBytes: bytes }) => ({ inode, bytes }));
    return { pid: this.#pid, sockets };
  }

  enlarge(): void {
    for (const { fd } of this.#entries) trySetting(fd, largeBytes);
    this.#droppedBefore = droppedBy(this.#entries);
  }

  /** Frames that came while they were large, and found no room all the same. */
  get dropped(): number {
    if (this.#entries.length > 0) this.#droppedMeanwhile = droppedBy(this.#entries) - this.#droppedBefore;
    return this.#droppedMeanwhile;
  }

  /** Waits until each has read what the smaller buffer has no room for beside new frames, but not for long. */
  async putBack(): Promise<void> {
    const entries = this.#entries;
    this.#entries = [];
    const limitMs = performance.now() + emptyBoundMs;
    const isFull = ({ fd, formerBytes }: Entry) => readReceiveBuffer(fd).filledBytes > formerBytes / 2;
    while (entries.some(isFull) && performance.now() < limitMs) await delay(pollMs);
    this.#droppedMeanwhile = droppedBy(entries) - this.#droppedBefore;
    for (const { fd, formerBytes } of entries) {
      trySetting(fd, formerBytes);
      closeDescriptor(fd);
    }
  }
}

const droppedBy = (entries: readonly Entry[]) =>
  entries.reduce((sum, { fd }) => sum + readReceiveBuffer(fd).dropped, 0);

/** None where the process is another's by now, or may not be looked into. */
async function socketsOf(pid: number): Promise<PacketSocket[]> {
  const name = await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '');
  if (name.trimEnd() !== daemon) return [];
  try {
    return duplicatePacketSockets(pid);
  } catch {
    return [];
  }
}

/** Lets go of those that have no former size. */
function entriesOf(
  sockets: readonly PacketSocket[],
  formerBytesOf: (socket: PacketSocket) => number | undefined,
): Entry[] {
  return sockets.flatMap((socket) => {
    const formerBytes = formerBytesOf(socket);
    if (formerBytes !== undefined) return [{ ...socket, formerBytes }];
    closeDescriptor(socket.fd);
    return [];
  });
}

function trySetting(fd: number, bytes: number): void {
  try {
    setReceiveBuffer(fd, bytes);
  } catch {
    // Without CAP_NET_ADMIN over it the buffer stays as it is, as without us.
  }
}
