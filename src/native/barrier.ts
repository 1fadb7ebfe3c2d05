import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

/** What is written to one descriptor in a barrier's pass. */
export interface BarrierWrite {
  /** A connected, non-blocking socket whose buffer has room: what does not go at once is an error of this write. */
  readonly fd: number;
  readonly bytes: Uint8Array;
}

export interface CutTap {
  /** A duplicate of the tap descriptor that QEMU reads from. */
  readonly fd: number;
  /** Length of the virtio-net header before each frame: 0 without IFF_VNET_HDR, else as TUNGETVNETHDRSZ says. */
  readonly headerBytes: number;
}

export interface CutOptions {
  /** The instant of the cut on CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  readonly spinNs: number;
  /** Memories whose first 32-bit word becomes 1 (hold) at T: each a gate's mode. */
  readonly modeWords: readonly ArrayBuffer[];
  readonly taps: readonly CutTap[];
  /** For how long after T running VMs may empty their rings themselves. */
  readonly ringBoundNs: number;
  readonly writes: readonly BarrierWrite[];
  /** Room for frames that stay in rings. A frame is read only while there is room for the largest one. */
  readonly leftoverBytesMax: number;
  /** Memory for them, if it was made ahead. */
  readonly leftovers?: ArrayBuffer | undefined;
  /** SCHED_FIFO priority, 1 to 99. */
  readonly realtimePriority?: number;
  /** Cancels until T; afterwards the cut is made to its end. */
  readonly signal?: AbortSignal | undefined;
}

export interface WriteOutcome {
  readonly writtenNs: bigint;
  /** A system error with `code`; null if all bytes were taken. */
  readonly error: (Error & { readonly code: string }) | null;
}

export interface LeftoverFrame {
  /** Index into `taps`. */
  readonly tapIndex: number;
  /** When it was read, on CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  /** The Ethernet frame without its virtio-net header. */
  readonly frame: Buffer;
}

export interface CutTimes {
  /** Whether the thread had real-time priority. */
  readonly realtime: boolean;
  readonly wokeNs: bigint;
  readonly flippedNs: bigint;
  /** When all rings were seen empty (after reading leftovers, if there were any); null if they never were. */
  readonly ringsEmptyNs: bigint | null;
  /** In the order of `writes`. */
  readonly writes: readonly WriteOutcome[];
  readonly leftovers: readonly LeftoverFrame[];
  /** There was no more room: frames are still in the rings. */
  readonly leftoversFull: boolean;
}

export interface ResumeOptions {
  readonly writes: readonly (BarrierWrite & { readonly atNs: bigint })[];
  readonly spinNs: number;
  readonly realtimePriority?: number;
  /** Cancels until the first instant; afterwards all are written. */
  readonly signal?: AbortSignal | undefined;
}

export interface ResumeTimes {
  readonly realtime: boolean;
  readonly writes: readonly WriteOutcome[];
}

type Started<Options> = Omit<Options, 'signal'> & { readonly realtimePriority: number };

interface BarrierAddon {
  startCut(options: Started<CutOptions> & { readonly leftovers: ArrayBuffer }): NativeJob<CutTimes>;
  startResume(options: Started<ResumeOptions>): NativeJob<ResumeTimes>;
}

const addon = loadAddon() as BarrierAddon;

const realtimePriorityDefault = 40;
const headerBytesMax = 64;
/** A frame is read only into at least this much room. */
export const leftoverFrameBytesMax = 65536 + 64;

/**
 * Makes the cut in a native real-time thread: sleeps until T, stores "hold", waits for the rings, reads what is left
 * in them, and writes all `writes` in one pass. A failing write never keeps the others from being made.
 */
export async function runCut(options: CutOptions): Promise<CutTimes> {
  const { signal, ...cut } = options;
  requireDuration('spinNs', cut.spinNs);
  requireDuration('ringBoundNs', cut.ringBoundNs);
  if (cut.modeWords.some(({ byteLength }) => byteLength < 4)) {
    throw new RangeError('a mode word has 4 bytes');
  }
  for (const tap of cut.taps) {
    if (!(tap.headerBytes >= 0 && tap.headerBytes <= headerBytesMax)) {
      throw new RangeError(`headerBytes must be 0 to ${headerBytesMax}: ${tap.headerBytes}`);
    }
  }
  const leftovers = cut.leftovers ?? new ArrayBuffer(cut.leftoverBytesMax);
  const realtimePriority = cut.realtimePriority ?? realtimePriorityDefault;
  return runJob(() => addon.startCut({ ...cut, leftovers, realtimePriority }), signal);
}

/** Makes each write at its own instant, in order of time, from a native real-time thread. */
export async function runResume(options: ResumeOptions): Promise<ResumeTimes> {
  const { signal, ...resume } = options;
  requireDuration('spinNs', resume.spinNs);
  const realtimePriority = resume.realtimePriority ?? realtimePriorityDefault;
  return runJob(() => addon.startResume({ ...resume, realtimePriority }), signal);
}

function requireDuration(name: string, value: number): void {
  if (!(value >= 0 && value <= 60e9)) throw new RangeError(`${name} must be 0 to 60 s: ${value}`);
}
