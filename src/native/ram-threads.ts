import { availableParallelism } from 'node:os';

/** Files of RAM are checksummed in chunks of this size; the last may be shorter. */
export const chunkBytes = 1024 * 1024;
const threadsMax = 64;

/** More than this do not copy memory any faster. */
export const copyThreads = Math.min(availableParallelism(), 8);

/** "idle" is SCHED_IDLE; a number is a nice value. */
export type Niceness = 'idle' | number;

/** As the addon takes it. */
export function nativeNiceness(niceness: Niceness): number {
  const idle = 20; // one beyond the lowest nice value, as native/ram/ram-chunk-job.cc has it
  if (niceness === 'idle') return idle;
  if (!Number.isInteger(niceness) || niceness < -20 || niceness > 19) {
    throw new RangeError(`niceness must be -20 to 19: ${niceness}`);
  }
  return niceness;
}

export function requireThreads(threads: number): number {
  if (!Number.isInteger(threads) || threads < 1 || threads > threadsMax) {
    throw new RangeError(`threads must be 1 to ${threadsMax}: ${threads}`);
  }
  return threads;
}

export function requireChecksums(length: number, checksums: Uint32Array): void {
  const chunks = Math.ceil(length / chunkBytes);
  if (checksums.length === chunks) return;
  throw new RangeError(`${length} bytes have ${chunks} chunks, not ${checksums.length}`);
}
