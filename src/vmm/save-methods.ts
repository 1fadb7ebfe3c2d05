import { prepareFork, probeFork } from '../native/fork.ts';
import { copyThreads, saveRam, type RateLimit, type SavedRam, type StoringOptions } from '../native/ram.ts';
import type { MethodChoice, SaveMethod } from '../protocol/vm.ts';
import { blocksOf, type RamLayout } from './ram-layout.ts';

/**
 * How the RAM of a stopped VM is kept (DESIGN.md "Saving a VM"; docs/decisions/0002): `fork` keeps a
 * copy-on-write image and copies it after the VM has gone on; `stop-copy` copies while the VM stands still.
 * Both read guest memory through /proc/PID/mem and end in the same stored form.
 */
export interface KeptRam {
  /** How long the fork held QEMU's main thread, nanoseconds; null where there is none. */
  readonly forkNs: number | null;
  write(block: { address: bigint; length: number }, file: string, options: WriteOptions): Promise<SavedRam>;
}

export interface WriteOptions {
  /** The stored form; left out: in full, without identities. */
  readonly storing?: StoringOptions | undefined;
  /** Of what is written beside running VMs. */
  readonly limit?: RateLimit | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
}

const regionsOf = (layout: RamLayout) => blocksOf(layout).map(({ address, length }) => ({ address, length }));

/** Made ready before time stops; `keep` is called once the VM has stopped. */
export interface RamKeeper {
  keep(): Promise<KeptRam>;
  /** Lets go of everything; the kept RAM too. May be called again. */
  close(): Promise<void>;
}

export type PrepareKeeper = (pid: number, layout: RamLayout) => Promise<RamKeeper>;

const forkTimeoutMs = 5_000;

async function keeperByFork(pid: number, layout: RamLayout): Promise<RamKeeper> {
  const prepared = await prepareFork({ pid, regions: regionsOf(layout), timeoutMs: forkTimeoutMs });
  let released: Promise<void> | undefined;
  return {
    keep: async () => {
      const { childPid, stoppedNs } = await prepared.fork();
      return {
        forkNs: stoppedNs,
        write: (block, file, options) => writeBlock(childPid, block, file, options, true),
      };
    },
    close: () => (released ??= prepared.release()),
  };
}

async function keeperInPlace(pid: number): Promise<RamKeeper> {
  return {
    keep: async () => ({
      forkNs: null,
      write: (block, file, options) => writeBlock(pid, block, file, options, false),
    }),
    close: async () => undefined,
  };
}

async function writeBlock(
  pid: number,
  block: { address: bigint; length: number },
  file: string,
  { storing, limit, signal, onProgress }: WriteOptions,
  background: boolean,
): Promise<SavedRam> {
  const regions = [{ address: block.address, length: block.length, fileOffset: 0 }];
  return saveRam({
    pid,
    regions,
    file,
    storing,
    threads: copyThreads,
    // Beside running VMs the copy takes what CPU is left, and no more than it may; while they stand still, all there is.
    ...(background ? { niceness: 'idle' as const, limit } : { niceness: 0 }),
    signal,
    onProgress: onProgress && (({ doneBytes }) => onProgress(doneBytes)),
  });
}

export interface SaveMethodEntry {
  readonly prepare: PrepareKeeper;
  /** Whether RAM has to be written before the VM may go on. */
  readonly copiesWhileStopped: boolean;
}

export const saveMethods: Readonly<Record<SaveMethod, SaveMethodEntry>> = {
  fork: { prepare: keeperByFork, copiesWhileStopped: false },
  'stop-copy': { prepare: keeperInPlace, copiesWhileStopped: true },
};

/** For each method null if it would work on this VM, or why not. */
export async function probeMethods(
  pid: number,
  layout: RamLayout | string,
): Promise<Record<SaveMethod, string | null>> {
  if (typeof layout === 'string') return { fork: layout, 'stop-copy': layout };
  return { fork: await forkObstacle(pid, layout), 'stop-copy': null };
}

async function forkObstacle(pid: number, layout: RamLayout): Promise<string | null> {
  const shared = blocksOf(layout).find((block) => !block.private);
  if (shared !== undefined) return `${shared.name} is a shared mapping, which a fork does not copy`;
  return probeFork({ pid, regions: regionsOf(layout) });
}

/** The method for a VM: the chosen one, or for auto the first that works, the shortest pause first. */
export function chooseMethod(
  choice: MethodChoice,
  methods: Record<SaveMethod, string | null>,
): SaveMethod | null {
  const candidates: readonly SaveMethod[] = choice === 'auto' ? ['fork', 'stop-copy'] : [choice];
  return candidates.find((method) => methods[method] === null) ?? null;
}
