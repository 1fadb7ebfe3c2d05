import { asStaghornError, StaghornError } from '../errors/index.ts';
import type { CutTap } from '../native/barrier.ts';
import type { Gate } from '../native/gate.ts';
import { LeftoverJournal, type LeftoverFrame, type RingTap } from '../native/leftovers.ts';
import { isErrno } from '../native/rtnetlink.ts';
import { vnetHeaderBytes } from '../native/tap.ts';
import { RingWatch } from './ring-watch.ts';
import type { VmPort } from './vm-port.ts';

export type SlottedPort = VmPort & { readonly slot: number };

/** Room a ring: 1000 frames (the kernel's txqueuelen) of 1.5 KB and their records, and one of the largest. */
const bytesARing = 2 * 1024 * 1024;
/** All of it is memory that is present while a barrier is armed. */
const bytesMax = 64 * 1024 * 1024;
/** How long a full ring is waited for, once its VM runs. */
const giveUpAfterMs = 10_000;

const notWaitedFor = -1;
const noJournal = { read: 0, returned: 0 };

/**
 * The frames that VMs had not read from their taps at the cut. They were in their ports before all that the gate
 * holds, and go back before it.
 * Invariant: a frame that was read from a ring is in the journal until its tap has it again.
 */
export class Leftovers {
  readonly #ports: readonly SlottedPort[];
  readonly #watch: RingWatch;
  #journal: LeftoverJournal | null = null;
  #full = false;

  constructor(ports: readonly SlottedPort[]) {
    this.#ports = ports;
    this.#watch = new RingWatch(ports);
  }

  get journal(): LeftoverJournal | null {
    return this.#journal;
  }

  /** Makes room for them in a new file. @throws StaghornError 'host-unfit' */
  prepare(path: string, gate: Gate): void {
    const rings = this.#ports.reduce((count, { tapFds }) => count + tapFds.length, 0);
    const bytes = Math.min(bytesMax, Math.max(1, rings) * bytesARing);
    try {
      this.#journal = LeftoverJournal.create({ path, bytes, nonce: gate.identity.nonce });
    } catch (error) {
      throw asStaghornError(error, 'host-unfit', `no room for frames from the taps' rings can be made: `);
    }
  }

  /** Takes over those that a dead agent had read, if it had come to that. */
  adopt(path: string, gate: Gate): void {
    try {
      const { identity, stateMemory: state } = gate;
      this.#journal = LeftoverJournal.open({ path, nonce: identity.nonce, state });
    } catch (error) {
      // None was made yet, or its making was cut short; before the cut in either case.
      if (!isErrno(error, 'ENOENT') && !isErrno(error, 'ESTALE')) throw error;
    }
  }

  /** The rings as the barrier thread wants them. */
  cutTaps(): CutTap[] {
    const readingOf = this.#watch.look(this.#ports);
    return this.#ports.flatMap((port) => {
      // vhost's thread in the kernel stops at once when QEMU tells it to: its ring can be read afterwards.
      const vhost = port.vhost === true;
      const { isRead, waitedFor } = readingOf(port);
      const reader = { readerThread: vhost ? 0 : (port.pid ?? 0), awaited: isRead, replaced: !vhost };
      return ringsOf(port).map((ring, place) => {
        const qemuFd = port.qemuFds?.[place] ?? notWaitedFor;
        return { ...ring, ...reader, qemuFd: !vhost && waitedFor.has(qemuFd) ? qemuFd : notWaitedFor };
      });
    });
  }

  /** To be called once all VMs stand still: @param full whether the journal was full at the cut */
  takeOver(full: boolean, closedAtNs: bigint): void {
    this.#full = full;
    const late = this.#ports.filter(({ vhost }) => vhost === true).flatMap(ringsOf);
    if (late.length > 0 && this.#journal?.readRings(late, closedAtNs) === false) this.#full = true;
  }

  /** @throws StaghornError 'frames-lost' if there was no room for all: what had none is in its ring still */
  assertRoom(): void {
    if (!this.#full) return;
    const { read } = this.counts;
    const text = `VMs left so many frames unread in their taps that only ${read} could be kept: they get too little CPU`;
    throw new StaghornError('frames-lost', text);
  }

  get counts(): { readonly read: number; readonly returned: number } {
    return this.#journal?.counts ?? noJournal;
  }

  /** Those that are not back yet, in order. */
  frames(): LeftoverFrame[] {
    return this.#journal?.frames() ?? [];
  }

  /** @returns how many went back. @throws StaghornError 'frames-lost' if a tap did not take its own */
  async giveBack(state: ArrayBuffer): Promise<number> {
    const { read, returned } = this.counts;
    if (this.#journal === null || read === returned) return 0;
    const ports = this.#ports.map((port) => ({ port: port.slot, ifindex: port.ifindex }));
    const { delivered, refused, lastErrno } = await this.#journal.giveBack({ state, ports, giveUpAfterMs });
    if (refused > 0)
      throw new StaghornError(
        'frames-lost',
        `taps refused ${refused} frames of their rings (errno ${lastErrno})`,
      );
    return delivered;
  }

  close(): void {
    this.#journal?.close();
    this.#journal = null;
  }
}

function ringsOf({ tapFds, slot }: SlottedPort): RingTap[] {
  // Queues that the guest has switched off tell nothing of themselves; all of a tap have the same header.
  const headerBytes = tapFds[0] === undefined ? 0 : vnetHeaderBytes(tapFds[0]);
  return tapFds.map((fd) => ({ fd, headerBytes, port: slot }));
}
