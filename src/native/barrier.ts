import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';
import { requireRingTaps } from './leftovers.ts';
import type { NativePause } from './paused-threads.ts';
import type { LeftoverJournal, NativeJournal, RingTap } from './leftovers.ts';

/** A VM of which threads stand still when its command comes, so that it is carried out at once. */
export interface HeldVm {
  /** QEMU's main thread, which carries out `stop` and `cont`; the command is read by another (QEMU's mon_iothread). */
  readonly mainThread: number;
  /** They go on once the main thread waits for them, or has said that the VM runs. */
  readonly vcpuThreads: readonly number[];
}

/** What is written to one descriptor in a barrier's pass. */
export interface BarrierWrite {
  /** A connected, non-blocking socket whose buffer has room: what does not go at once is an error of this write. */
  readonly fd: number;
  readonly bytes: Uint8Array;
  /** So many of them mean nothing yet, and are written some milliseconds ahead: QEMU reads byte by byte. */
  readonly headBytes?: number;
  readonly held?: HeldVm | null;
}

/** One ring of a tap, which has as many as queues. */
export interface CutTap extends RingTap {
  /** QEMU's main thread, which reads the ring and stands still while it is read in its place; 0: nobody's. */
  readonly readerThread: number;
  /**
   * The descriptor's number in QEMU. Its main thread waits for it, unless it has read a frame that the guest has no
   * buffer for. -1: it is not known to wait.
   */
  readonly qemuFd: number;
  /** Its reader gets the time to empty it. */
  readonly awaited: boolean;
  /** What its reader leaves is read into the journal. */
  readonly replaced: boolean;
}

export interface CutOptions {
  /** The instant of the cut on CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  readonly spinNs: number;
  /** Memories whose first 32-bit word becomes 1 (hold) at T: each a gate's mode. */
  readonly modeWords: readonly ArrayBuffer[];
  readonly taps: readonly CutTap[];
  /** For how long after T the readers of awaited taps may empty their rings. */
  readonly ringBoundNs: number;
  /** Where frames go that stay in rings; null: they stay there. */
  readonly journal: LeftoverJournal | null;
  readonly writes: readonly BarrierWrite[];
  /** For how long QEMUs may take to answer while nobody reads their answers; 0: they are not waited for. */
  readonly answerBoundNs?: number;
  /** SCHED_FIFO priority, 1 to 99. */
  readonly realtimePriority?: number;
  /** Cancels until T; afterwards the cut is made to its end. */
  readonly signal?: AbortSignal | undefined;
}

export interface WriteOutcome {
  /** If its main thread stood still: when that went on. */
  readonly writtenNs: bigint;
  /** A system error with `code`; null if all bytes were taken. */
  readonly error: (Error & { readonly code: string }) | null;
}

export interface CutTimes {
  /** Whether the thread had real-time priority. */
  readonly realtime: boolean;
  readonly wokeNs: bigint;
  readonly flippedNs: bigint;
  /** When all rings were seen empty, after leftovers were read; null if one was not. */
  readonly ringsEmptyNs: bigint | null;
  /** In the order of `writes`. */
  readonly writes: readonly WriteOutcome[];
  /** The journal had no more room: frames are still in the rings. */
  readonly leftoversFull: boolean;
  /** Of which QEMU had read a frame that it could not deliver, and has dropped. */
  readonly stuckPorts: readonly number[];
  /** Threads that were kept from running while their rings were read. */
  readonly readersPaused: number;
}

export interface ResumeWrite extends BarrierWrite {
  readonly atNs: bigint;
  /** Paused threads that go on right after it. */
  readonly letsGo?: NativePause | null;
}

export interface ResumeOptions {
  readonly writes: readonly ResumeWrite[];
  readonly spinNs: number;
  /** As for the cut. */
  readonly answerBoundNs?: number;
  readonly realtimePriority?: number;
  /** Cancels until 1.5 ms before the first instant; afterwards all are written. */
  readonly signal?: AbortSignal | undefined;
}

export interface ResumeTimes {
  readonly realtime: boolean;
  readonly writes: readonly WriteOutcome[];
}

type Started<Options> = Omit<Options, 'signal' | 'journal'> & {
  readonly realtimePriority: number;
  readonly answerBoundNs: number;
};

interface BarrierAddon {
  startCut(options: Started<CutOptions> & { readonly journal: NativeJournal | null }): NativeJob<CutTimes>;
  startResume(options: Started<ResumeOptions>): NativeJob<ResumeTimes>;
}

const addon = loadAddon() as BarrierAddon;

const realtimePriorityDefault = 40;

/**
 * Makes the cut in a native real-time thread: sleeps until T, stores "hold", waits for the rings, moves what is
 * left in them into the journal, and writes all `writes` in one pass. A failing write never keeps the others from being made.
 */
export async function runCut(options: CutOptions): Promise<CutTimes> {
  const { signal, ...cut } = options;
  requireDuration('spinNs', cut.spinNs);
  requireDuration('ringBoundNs', cut.ringBoundNs);
  if (cut.modeWords.some(({ byteLength }) => byteLength < 4)) {
    throw new RangeError('a mode word has 4 bytes');
  }
  requireRingTaps(cut.taps);
  const journal = cut.journal?.native ?? null;
  const common = defaultsOf(cut);
  return runJob(() => addon.startCut({ ...cut, journal, ...common }), signal);
}

/** Makes each write at its own instant, in order of time, from a native real-time thread. */
export async function runResume(options: ResumeOptions): Promise<ResumeTimes> {
  const { signal, ...resume } = options;
  requireDuration('spinNs', resume.spinNs);
  const common = defaultsOf(resume);
  return runJob(() => addon.startResume({ ...resume, ...common }), signal);
}

const defaultsOf = ({
  realtimePriority = realtimePriorityDefault,
  answerBoundNs = 0,
}: Pick<CutOptions, 'realtimePriority' | 'answerBoundNs'>) => ({ realtimePriority, answerBoundNs });

function requireDuration(name: string, value: number): void {
  if (!(value >= 0 && value <= 60e9)) throw new RangeError(`${name} must be 0 to 60 s: ${value}`);
}
