import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

/** Files of RAM are checksummed in chunks of this size; the last may be shorter. */
export const chunkBytes = 1024 * 1024;
const pageBytes = 4096;
const threadsMax = 64;
const progressIntervalMs = 100;

export interface SavedRegion {
  /** Address in the process; a multiple of the page size, like the length. */
  readonly address: bigint;
  readonly length: number;
  /** A multiple of `chunkBytes`. */
  readonly fileOffset: number;
}

/** "idle" is SCHED_IDLE; a number is a nice value. */
export type Niceness = 'idle' | number;

/** A process's memory, or a file, in which a region's address is its offset. */
export type RamSource = { readonly pid: number } | { readonly fd: number };

export type SaveRamOptions = RamSource & SaveOptions;

interface SaveOptions {
  readonly regions: readonly SavedRegion[];
  /** A path, which is created or emptied; or a descriptor of a file, which is emptied. */
  readonly file: string | number;
  readonly threads?: number;
  readonly niceness?: Niceness;
  /** Of data written; 0 for no limit. */
  readonly maxBytesPerSecond?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { doneBytes: number; totalBytes: number }) => void) | undefined;
}

export interface SavedRam {
  /** The file's length, holes included. */
  readonly fileBytes: number;
  /** What was written: pages that are not all zeros. */
  readonly dataBytes: number;
  /** CRC-32C of each chunk of the file. */
  readonly chunkChecksums: Uint32Array;
}

export interface VerifyRamOptions {
  readonly file: string;
  readonly length: number;
  readonly checksums: Uint32Array;
  readonly threads?: number;
  readonly niceness?: Niceness;
  readonly signal?: AbortSignal | undefined;
}

export interface VerifiedRam {
  readonly ok: boolean;
  /** Index of the first chunk that is not as it was; where the file ends if its length is wrong; null if all is well. */
  readonly firstBadChunk: number | null;
}

interface RamAddon {
  startSaveRam(options: {
    readonly pid: number | null;
    readonly fd: number | null;
    readonly regions: readonly SavedRegion[];
    readonly file: string | number;
    readonly length: number;
    readonly threads: number;
    readonly niceness: number;
    readonly maxBytesPerSecond: number;
  }): NativeJob<SavedRam>;
  startVerifyRam(options: {
    readonly file: string;
    readonly length: number;
    readonly checksums: Uint32Array;
    readonly threads: number;
    readonly niceness: number;
  }): NativeJob<VerifiedRam>;
  writeMemory(pid: number, address: bigint, bytes: Uint8Array): void;
}

const addon = loadAddon() as RamAddon;

/**
 * Saves memory of a process that does not change it meanwhile (a forked child, a stopped QEMU) to a sparse file.
 * Rejects with a system error: ESRCH if the process ends, ENOSPC if the disk is full. The file is not synced.
 */
export async function saveRam(options: SaveRamOptions): Promise<SavedRam> {
  const source = 'pid' in options ? { pid: options.pid, fd: null } : { pid: null, fd: options.fd };
  const {
    regions,
    file,
    threads = 1,
    niceness = 'idle',
    maxBytesPerSecond = 0,
    signal,
    onProgress,
  } = options;
  const length = fileLength(regions);
  requireThreads(threads);
  if (!(maxBytesPerSecond >= 0)) throw new RangeError('maxBytesPerSecond must not be negative');
  const start = () =>
    addon.startSaveRam({
      ...source,
      regions,
      file,
      length,
      threads,
      niceness: nice(niceness),
      maxBytesPerSecond,
    });
  const report = (doneBytes: number) => onProgress?.({ doneBytes, totalBytes: length });
  return runJob(() => withProgress(start(), report), signal);
}

/** Compares a file with the checksums of when it was saved. Holes are not read. */
export async function verifyRam(options: VerifyRamOptions): Promise<VerifiedRam> {
  const { file, length, checksums, threads = 2, niceness = 0, signal } = options;
  requireThreads(threads);
  if (checksums.length !== Math.ceil(length / chunkBytes)) {
    throw new RangeError(
      `${length} bytes have ${Math.ceil(length / chunkBytes)} chunks, not ${checksums.length}`,
    );
  }
  return runJob(
    () => addon.startVerifyRam({ file, length, checksums, threads, niceness: nice(niceness) }),
    signal,
  );
}

/** Writes into a process's memory through /proc/PID/mem, also where the process itself may only read. */
export function writeMemory(options: { pid: number; address: bigint; bytes: Uint8Array }): void {
  addon.writeMemory(options.pid, options.address, options.bytes);
}

function fileLength(regions: readonly SavedRegion[]): number {
  let end = 0;
  for (const region of [...regions].sort((a, b) => a.fileOffset - b.fileOffset)) {
    const aligned = region.address % BigInt(pageBytes) === 0n && region.length % pageBytes === 0;
    if (!aligned || region.length <= 0) throw new RangeError('a region is not made of whole pages');
    if (region.fileOffset % chunkBytes !== 0 || region.fileOffset < end) {
      throw new RangeError('a region does not begin at a chunk of its own in the file');
    }
    end = region.fileOffset + region.length;
  }
  if (end === 0) throw new RangeError('there is no region to save');
  return end;
}

function withProgress<Result>(
  job: NativeJob<Result>,
  report: (doneBytes: number) => void,
): NativeJob<Result> {
  const timer = setInterval(() => report(job.progress()), progressIntervalMs);
  const promise = job.promise
    .finally(() => clearInterval(timer))
    .then((result) => {
      report(job.progress());
      return result;
    });
  return { promise, cancel: () => job.cancel(), progress: () => job.progress() };
}

function nice(niceness: Niceness): number {
  const idle = 20; // one beyond the lowest nice value, as native/ram.cc has it
  if (niceness === 'idle') return idle;
  if (!Number.isInteger(niceness) || niceness < -20 || niceness > 19) {
    throw new RangeError(`niceness must be -20 to 19: ${niceness}`);
  }
  return niceness;
}

function requireThreads(threads: number): void {
  if (!Number.isInteger(threads) || threads < 1 || threads > threadsMax) {
    throw new RangeError(`threads must be 1 to ${threadsMax}: ${threads}`);
  }
}
