import { loadAddon } from './addon.ts';
import { runJob, type NativeJob } from './job.ts';
import {
  copyThreads,
  nativeNiceness,
  requireChecksums,
  requireThreads,
  type Niceness,
} from './ram-threads.ts';

interface CheckOptions {
  /** Of the RAM. */
  readonly length: number;
  /** CRC-32C of each chunk of the RAM. */
  readonly checksums: Uint32Array;
  readonly threads?: number;
  readonly niceness?: Niceness;
  readonly signal?: AbortSignal | undefined;
}

export interface VerifyRamOptions extends CheckOptions {
  readonly file: string;
}

export interface RebuildRamOptions extends CheckOptions {
  readonly placesFile: string;
  /** The files of pages that the places count, from 1 on; null for one that they do not use. */
  readonly layers: readonly (string | null)[];
  /** Appears when it is complete and right, if nothing is there already; null only checks. */
  readonly file: string | null;
}

export interface CheckedRam {
  readonly ok: boolean;
  /** Index of the first chunk that is not as it was; where the file ends if its length is wrong; null if all is well. */
  readonly firstBadChunk: number | null;
}

interface NativeCheck {
  readonly length: number;
  readonly checksums: Uint32Array;
  readonly threads: number;
  readonly niceness: number;
}

interface RamCheckAddon {
  startVerifyRam(options: NativeCheck & { readonly file: string }): NativeJob<CheckedRam>;
  startRebuildRam(
    options: NativeCheck & Pick<RebuildRamOptions, 'placesFile' | 'layers' | 'file'>,
  ): NativeJob<CheckedRam>;
}

const addon = loadAddon() as RamCheckAddon;

/** Compares a file with the checksums of when it was saved. Holes are not read. */
export async function verifyRam(options: VerifyRamOptions): Promise<CheckedRam> {
  const { file, signal } = options;
  const check = nativeCheck(options);
  return runJob(() => addon.startVerifyRam({ ...check, file }), signal);
}

/** Puts RAM together that is stored in layers, and compares it with the checksums of when it was saved. */
export async function rebuildRam(options: RebuildRamOptions): Promise<CheckedRam> {
  const { placesFile, layers, file, signal } = options;
  const check = nativeCheck(options);
  return runJob(() => addon.startRebuildRam({ ...check, placesFile, layers, file }), signal);
}

function nativeCheck({ length, checksums, threads = copyThreads, niceness = 0 }: CheckOptions): NativeCheck {
  requireChecksums(length, checksums);
  return { length, checksums, threads: requireThreads(threads), niceness: nativeNiceness(niceness) };
}
