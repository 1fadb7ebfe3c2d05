import { writeBlock, type RamKeeper, type SaveTarget } from './keeper.ts';

/** RAM is stored while the VM stands still (docs/decisions/0002). */
export async function keeperInPlace({ pid }: SaveTarget): Promise<RamKeeper> {
  return {
    keep: async () => ({
      forkNs: null,
      write: (block, file, options) => writeBlock({ pid }, block, file, options, false),
    }),
    close: async () => undefined,
  };
}
