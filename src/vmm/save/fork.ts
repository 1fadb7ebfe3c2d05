import { prepareFork, probeTrace } from '../../native/fork.ts';
import { blocksOf, type RamLayout } from '../ram-layout.ts';
import { writeBlock, type RamKeeper, type SaveTarget } from './keeper.ts';

const forkTimeoutMs = 5_000;

const regionsOf = (layout: RamLayout) => blocksOf(layout).map(({ address, length }) => ({ address, length }));

/** A copy-on-write image of the stopped QEMU, read after the VM has gone on. */
export async function keeperByFork({ pid, layout }: SaveTarget): Promise<RamKeeper> {
  const prepared = await prepareFork({
    pid,
    regions: regionsOf(layout),
    // It would be copied for nothing, and its VM would have to copy what it translates after the fork page by page.
    leftOut: layout.codeBuffer === null ? [] : [layout.codeBuffer],
    timeoutMs: forkTimeoutMs,
  });
  let released: Promise<void> | undefined;
  return {
    keep: async () => {
      const { childPid, stoppedNs } = await prepared.fork();
      return {
        forkNs: stoppedNs,
        write: (block, file, options) =>
          writeBlock({ pid: childPid, forked: true }, block, file, options, true),
      };
    },
    close: () => (released ??= prepared.release()),
  };
}

/** Null if it would work, else why not. */
export function forkObstacle(pid: number, layout: RamLayout): string | null {
  const shared = blocksOf(layout).find((block) => !block.private);
  if (shared !== undefined) return `${shared.name} is a shared mapping, which a fork does not copy`;
  const huge = blocksOf(layout).find((block) => block.hugePages);
  if (huge !== undefined) return `${huge.name} is of hugetlbfs, which may have no page for a copy`;
  return probeTrace(pid);
}
