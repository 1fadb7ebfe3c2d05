import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';
import { identityKeyBytes, pageBytes } from './page-identity.ts';
import { chunkBytes, nativeNiceness, requireThreads, type Niceness } from './ram-threads.ts';

export { chunkBytes, copyThreads, type Niceness } from './ram-threads.ts';
export { verifyRam } from './ram-check.ts';

const progressIntervalMs = 100;

/** The most layers that places can count (native/ram/ram-places.h). */
export const layersMax = 32;

export interface SavedRegion {
  /** Address in the process, or offset in the memory file; a multiple of the page size, like the length. */
  readonly address: bigint;
  readonly length: number;
  /** A multiple of `chunkBytes`. */
  readonly fileOffset: number;
}

/**
 * The process whose memory is read, or the descriptor of a memory file. A forked process shares its pages with another
 * one, and goes on sharing them.
 */
export type RamSource = { readonly pid: number; readonly forked?: boolean } | { readonly fd: number };

declare const rateLimitBrand: unique symbol;
/** A limit of written bytes a second, shared by all saves that are given it. */
export interface RateLimit {
  readonly [rateLimitBrand]: true;
}

/** What a save is compared with. */
export interface SaveParent {
  readonly identitiesFile: string;
  /** Null: its RAM is stored in full, and is layer 2 of what is saved. */
  readonly placesFile: string | null;
  /** Of its layers, counted from 1, the numbers that they have in what is saved; 0 for none. */
  readonly layerOf: Uint8Array;
}

/** How RAM is stored; docs/architecture.md, "The stored forms of RAM". */
export interface StoringOptions {
  /** With it RAM is stored in layers, and `file` has its own pages; null: `file` is all of the RAM. */
  readonly placesFile: string | null;
  /** Of zstd; 0: not compressed. Only in layers. */
  readonly level: number;
  readonly identities: { readonly file: string; readonly key: Uint8Array } | null;
  readonly parent: SaveParent | null;
}

interface SaveRamChoices {
  readonly regions: readonly SavedRegion[];
  /** A path, which is created or emptied; or a descriptor of a file, which is emptied. */
  readonly file: string | number;
  /** Left out: in full, without identities. */
  readonly storing?: StoringOptions | undefined;
  readonly threads?: number;
  readonly niceness?: Niceness;
  readonly limit?: RateLimit | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: { doneBytes: number; totalBytes: number }) => void) | undefined;
}
export type SaveRamOptions = RamSource & SaveRamChoices;

export interface SavedRam {
  /** The file's length, holes included. */
  readonly fileBytes: number;
  /** What was written: pages that are not all zeros, and that no other layer has. */
  readonly dataBytes: number;
  /** CRC-32C of each chunk of the RAM. */
  readonly chunkChecksums: Uint32Array;
  /** How many pages of the RAM are in each layer; all 0 for RAM stored in full. */
  readonly layerPages: readonly number[];
}

interface NativeSave {
  readonly pid: number | null;
  readonly forked: boolean;
  readonly fd: number | null;
  readonly regions: readonly SavedRegion[];
  readonly file: string | number;
  readonly length: number;
  readonly threads: number;
  readonly niceness: number;
  readonly storing: StoringOptions | null;
  readonly limit: RateLimit | null;
}

interface RamAddon {
  createRateLimit(bytesPerSecond: number): RateLimit;
  startSaveRam(options: NativeSave): NativeJob<SavedRam>;
  writeMemory(pid: number, address: bigint, bytes: Uint8Array): void;
}

const addon = loadAddon() as RamAddon;

/**
 * Saves memory that does not change meanwhile (of a forked child, a stopped QEMU, a file).
 * Rejects with a system error: ESRCH if the process ends, ENOSPC if the disk is full. The files are not synced.
 */
export async function saveRam(options: SaveRamOptions): Promise<SavedRam> {
  const { regions, file, storing = null, threads = 1, niceness = 'idle', limit = null } = options;
  const length = fileLength(regions);
  if (storing !== null) requireStoring(storing);
  const source =
    'pid' in options
      ? { pid: options.pid, forked: options.forked ?? false, fd: null }
      : { pid: null, forked: false, fd: options.fd };
  const native: NativeSave = {
    ...source,
    ...{ regions, file, length, storing, limit },
    threads: requireThreads(threads),
    niceness: nativeNiceness(niceness),
  };
  const report = (doneBytes: number) => options.onProgress?.({ doneBytes, totalBytes: length });
  return runJob(() => withProgress(addon.startSaveRam(native), report), options.signal);
}

export function createRateLimit(bytesPerSecond: number): RateLimit {
  if (!(bytesPerSecond > 0)) throw new RangeError('a limit is more than 0 bytes a second');
  return addon.createRateLimit(bytesPerSecond);
}

/** Writes into a process's memory through /proc/PID/mem, also where the process itself may only read. */
export function writeMemory(options: { pid: number; address: bigint; bytes: Uint8Array }): void {
  addon.writeMemory(options.pid, options.address, options.bytes);
}

function requireStoring({ placesFile, level, identities, parent }: StoringOptions): void {
  if (identities !== null && identities.key.length !== identityKeyBytes) {
    throw new RangeError(`a key has ${identityKeyBytes} bytes`);
  }
  if (parent !== null && (identities === null || placesFile === null)) {
    throw new RangeError('only RAM in layers, with identities, can have a parent');
  }
  if (level !== 0 && placesFile === null) throw new RangeError('only RAM in layers can be compressed');
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
