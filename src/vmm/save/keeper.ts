import {
  copyThreads,
  saveRam,
  type RamSource,
  type RateLimit,
  type SavedRam,
  type StoringOptions,
} from '../../native/ram.ts';
import type { PausedThreads } from '../../native/paused-threads.ts';
import type { QmpClient } from '../../qmp/index.ts';
import type { RamLayout } from '../ram-layout.ts';

/**
 * How the RAM of a stopped VM is kept. Whatever the method, what is kept is read block by block afterwards and ends in
 * the same stored form (docs/architecture.md "Saving a VM", docs/decisions/0015).
 */
export interface KeptRam {
  /** How long the fork held QEMU's main thread, nanoseconds; null where there is none. */
  readonly forkNs: number | null;
  /** QEMU's main thread, which stands still; let go, it resumes the VM by itself. Left out where it runs. */
  readonly held?: PausedThreads;
  write(block: Block, file: string, options: WriteOptions): Promise<SavedRam>;
}

export interface Block {
  readonly name: string;
  readonly address: bigint;
  readonly length: number;
}

export interface WriteOptions {
  /** The stored form; left out: in full, without identities. */
  readonly storing?: StoringOptions | undefined;
  /** Of what is written beside running VMs. */
  readonly limit?: RateLimit | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
}

/** Made ready before time stops; `keep` is called once the VM has stopped. */
export interface RamKeeper {
  keep(): Promise<KeptRam>;
  /** Lets go of everything; the kept RAM too. May be called again. */
  close(): Promise<void>;
}

export interface SaveTarget {
  readonly pid: number;
  readonly qmp: QmpClient;
  readonly layout: RamLayout;
  /** Of the snapshot that is being written: files without a name can be made there. */
  readonly directory: string;
  /** Of what is written while the VM runs; 0 for no limit. */
  readonly maxBytesPerSecond: number;
}

export type PrepareKeeper = (target: SaveTarget) => Promise<RamKeeper>;

/** @param background beside running VMs it takes what CPU is left, and writes no more than it may; while they stand still, all there is */
export function writeBlock(
  source: RamSource,
  { address, length }: Block,
  file: string,
  { storing, limit, signal, onProgress }: WriteOptions,
  background: boolean,
): Promise<SavedRam> {
  return saveRam({
    ...source,
    regions: [{ address: 'fd' in source ? 0n : address, length, fileOffset: 0 }],
    file,
    storing,
    threads: copyThreads,
    ...(background ? { niceness: 'idle' as const, limit } : { niceness: 0 }),
    signal,
    onProgress: onProgress && (({ doneBytes }) => onProgress(doneBytes)),
  });
}
