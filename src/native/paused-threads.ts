import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

/** An opaque value of the addon. */
export type NativePause = object;

interface PausedThreadsAddon {
  startPauseThreads(
    threads: readonly number[],
    boundNs: number,
  ): NativeJob<{ native: NativePause; paused: number }>;
  endPauseThreads(native: NativePause): void;
}

const addon = loadAddon() as PausedThreadsAddon;

const pauseBoundNs = 5_000_000;

/** Threads of other processes that do not run until `end`, or until this process ends, however. */
export interface PausedThreads {
  /** How many of them were stopped: one that somebody else traces is not. */
  readonly paused: number;
  readonly native: NativePause;
  end(): void;
}

/** Stops threads by ptrace (native/process/paused-threads.h). */
export async function pauseThreads(threads: readonly number[]): Promise<PausedThreads> {
  const { native, paused } = await runJob(() => addon.startPauseThreads(threads, pauseBoundNs));
  return { paused, native, end: () => addon.endPauseThreads(native) };
}
