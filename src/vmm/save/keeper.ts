import { availableParallelism } from 'node:os';

import { saveRam, type RamSource, type SavedRam } from '../../native/ram.ts';
import type { QmpClient } from '../../qmp/index.ts';
import type { RamLayout } from '../ram-layout.ts';

/**
 * How the RAM of a stopped VM is kept. Whatever the method, what is kept is read block by block afterwards and ends in
 * the same stored form (docs/architecture.md "Saving a VM", docs/decisions/0015).
 */
export interface KeptRam {
  /** How long the fork held QEMU's main thread, nanoseconds; null where there is none. */
  readonly forkNs: number | null;
  /** How long the VM's clock ran while it was kept: QEMU resumes by itself in method background. */
  readonly ranNs: number;
  write(block: Block, file: string, options: WriteOptions): Promise<SavedRam>;
}

export interface Block {
  readonly name: string;
  readonly address: bigint;
  readonly length: number;
}

export interface WriteOptions {
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
}

export type PrepareKeeper = (target: SaveTarget) => Promise<RamKeeper>;

export const copyThreads = Math.min(availableParallelism(), 8);

/** @param background beside running VMs the copy takes what CPU is left; while they stand still, all there is */
export function writeBlock(
  source: RamSource,
  { address, length }: Block,
  file: string,
  { signal, onProgress }: WriteOptions,
  background: boolean,
): Promise<SavedRam> {
  return saveRam({
    ...source,
    regions: [{ address: 'fd' in source ? 0n : address, length, fileOffset: 0 }],
    file,
    ...(background ? { threads: 1, niceness: 'idle' as const } : { threads: copyThreads, niceness: 0 }),
    signal,
    onProgress: onProgress && (({ doneBytes }) => onProgress(doneBytes)),
  });
}
