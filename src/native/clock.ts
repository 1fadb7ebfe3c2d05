import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

interface ClockAddon {
  monotonicNs(): bigint;
  realtimeNs(): bigint;
  taiNs(): bigint;
  realtimeErrorNs(): number | null;
  realtimeMinusMonotonicNs(): bigint;
  startNanosleep(atNs: bigint): NativeJob<number>;
  startSleep(options: Required<Omit<SleepOptions, 'signal'>>): NativeJob<SleepResult>;
}

const addon = loadAddon() as ClockAddon;

export interface SleepOptions {
  /** The instant to wake at, on CLOCK_MONOTONIC. An instant of the past wakes at once. */
  readonly atNs: bigint;
  /** For how long before that the thread spins instead of sleeping. */
  readonly spinNs: number;
  /** SCHED_FIFO priority, 1 to 99; 0 for the default scheduler. Where it is refused the thread goes on without. */
  readonly realtimePriority?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface SleepResult {
  readonly wokeNs: bigint;
  /** wokeNs - atNs. */
  readonly latenessNs: number;
  /** The longest that the thread was away while it spun: an interrupt, or the hypervisor took the processor. */
  readonly longestGapNs: number;
  readonly realtime: boolean;
}

/** CLOCK_MONOTONIC: does not tick while the host is suspended, is not set, and is not comparable between hosts. */
export function monotonicNs(): bigint {
  return addon.monotonicNs();
}

/** CLOCK_REALTIME: nanoseconds since 1970, as set and slewed by NTP. */
export function realtimeNs(): bigint {
  return addon.realtimeNs();
}

/** CLOCK_TAI: realtime and the leap seconds, if the host's NTP daemon has told the kernel of them. */
export function taiNs(): bigint {
  return addon.taiNs();
}

/**
 * How far CLOCK_REALTIME may be from UTC at most, nanoseconds, by what a daemon (chrony, ntpd, phc2sys) has told the
 * kernel: `maxerror` of adjtimex(2), which grows between its updates. Null: nobody keeps the clock, or a leap second is near.
 */
export function realtimeErrorNs(): number | null {
  return addon.realtimeErrorNs();
}

/** What CLOCK_REALTIME is ahead of CLOCK_MONOTONIC by now: the best of a few paired reads, good to some 100 ns. */
export function realtimeMinusMonotonicNs(): bigint {
  return addon.realtimeMinusMonotonicNs();
}

/** Sleeps in a native thread of its own, off the event loop. Rejects with the signal's reason when it is aborted. */
export async function sleepUntil(options: SleepOptions): Promise<SleepResult> {
  const { atNs, spinNs, realtimePriority = 0, signal } = options;
  if (!(spinNs >= 0)) throw new RangeError(`spinNs must not be negative: ${spinNs}`);
  if (!Number.isInteger(realtimePriority) || realtimePriority < 0 || realtimePriority > 99) {
    throw new RangeError(`realtimePriority must be 0 to 99: ${realtimePriority}`);
  }
  return runJob(() => addon.startSleep({ atNs, spinNs, realtimePriority }), signal);
}

/** clock_nanosleep(2) alone, in a thread of its own; to compare with. @returns how late it woke, nanoseconds */
export function nanosleepUntil(atNs: bigint): Promise<number> {
  return runJob(() => addon.startNanosleep(atNs));
}
