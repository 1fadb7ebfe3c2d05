import { closeSync, constants, openSync } from 'node:fs';

import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

/** One ring of a tap. */
export interface RingTap {
  /** A duplicate of the descriptor that QEMU reads from. */
  readonly fd: number;
  /** Length of the virtio-net header before each frame: 0 without IFF_VNET_HDR, else as TUNGETVNETHDRSZ says. */
  readonly headerBytes: number;
  /** The slot that its tap has in the gate. */
  readonly port: number;
}

export interface LeftoverFrame {
  readonly port: number;
  /** When the gate closed, on CLOCK_MONOTONIC: the frame was in its ring by then. */
  readonly atNs: bigint;
  /** Bytes a segment if the frame is still to be segmented; 0 otherwise. */
  readonly gsoSize: number;
  /** The Ethernet frame without its virtio-net header. */
  readonly frame: Buffer;
}

export interface GivenBack {
  readonly delivered: number;
  /** Its device did not take them, or is gone. */
  readonly refused: number;
  /** Why the last one was refused; 0 if none was. */
  readonly lastErrno: number;
}

export interface GiveBackOptions {
  /** The gate's state (Gate.stateMemory): its mark lets frames pass, its counters tell which have. */
  readonly state: ArrayBuffer;
  readonly ports: readonly { readonly port: number; readonly ifindex: number }[];
  /** How long a full ring is waited for. */
  readonly giveUpAfterMs: number;
}

/** The addon's own object, for the barrier thread. */
export interface NativeJournal {
  settle(state: ArrayBuffer): void;
  counts(): { read: number; returned: number };
  frames(): LeftoverFrame[];
  readRings(taps: readonly RingTap[], atNs: bigint): boolean;
  close(): void;
}

interface GiveBackStart {
  readonly journal: NativeJournal;
  readonly state: ArrayBuffer;
  readonly ports: GiveBackOptions['ports'];
  readonly giveUpAfterNs: number;
}

interface LeftoversAddon {
  readonly LeftoverJournal: new (fd: number, nonce: bigint, bytes: number | null) => NativeJournal;
  startGiveBack(options: GiveBackStart): NativeJob<GivenBack>;
}

const addon = loadAddon() as LeftoversAddon;

const headerBytesMax = 64;
const bytesMax = 1024 * 1024 * 1024;

/** A frame is read only where there is this much room in the journal: the largest frame and its record. */
export const leftoverRoomBytes = 88 + 65_536 + 64;

/**
 * The frames that VMs had not read from their taps at the cut, in a file that the barrier thread writes through a
 * mapping (native/gate/leftover-journal.h). Whoever opens it after a kill finds them in order, and gives each back once.
 */
export class LeftoverJournal {
  readonly native: NativeJournal;

  private constructor(native: NativeJournal) {
    this.native = native;
  }

  /**
   * Makes the file, whole and present in memory, in the network namespace of the taps. Throws an error with an errno's `code`: ENOSPC, EEXIST, …
   */
  static create({ path, bytes, nonce }: { path: string; bytes: number; nonce: bigint }): LeftoverJournal {
    if (!(bytes > 0 && bytes <= bytesMax))
      throw new RangeError(`a journal of leftovers has up to 1 GiB: ${bytes}`);
    return new LeftoverJournal(open(path, nonce, bytes));
  }

  /** Throws ENOENT if there is none, ESTALE if it belongs to another gate. */
  static open({ path, nonce, state }: { path: string; nonce: bigint; state: ArrayBuffer }): LeftoverJournal {
    const native = open(path, nonce, null);
    native.settle(state);
    return new LeftoverJournal(native);
  }

  /** How many frames were read from rings, and how many of them are back. */
  get counts(): { readonly read: number; readonly returned: number } {
    return this.native.counts();
  }

  /** Those that are not back yet, in order. */
  frames(): LeftoverFrame[] {
    return this.native.frames();
  }

  /** Empties rings whose reader does not read; false if there was no room for all. */
  readRings(taps: readonly RingTap[], atNs: bigint): boolean {
    requireRingTaps(taps);
    return this.native.readRings(taps, atNs);
  }

  /** Puts all frames back into their taps, past the gate, in order and with their offload data. */
  giveBack({ state, ports, giveUpAfterMs }: GiveBackOptions): Promise<GivenBack> {
    return runJob(() =>
      addon.startGiveBack({ journal: this.native, state, ports, giveUpAfterNs: giveUpAfterMs * 1e6 }),
    );
  }

  /** Lets go of the file, which stays. */
  close(): void {
    this.native.close();
  }
}

function open(path: string, nonce: bigint, bytes: number | null): NativeJournal {
  const make = bytes === null ? 0 : constants.O_CREAT | constants.O_EXCL;
  const fd = openSync(path, constants.O_RDWR | make, 0o600);
  try {
    return new addon.LeftoverJournal(fd, nonce, bytes);
  } finally {
    closeSync(fd);
  }
}

export function requireRingTaps(taps: readonly RingTap[]): void {
  for (const { headerBytes } of taps) {
    if (!(headerBytes >= 0 && headerBytes <= headerBytesMax)) {
      throw new RangeError(`headerBytes must be 0 to ${headerBytesMax}: ${headerBytes}`);
    }
  }
}
