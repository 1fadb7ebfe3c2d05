import { medianAtMost, type BenchOptions, type BenchResult } from '../bench.ts';
import { coldRestore } from './cold-restore.ts';
import type { RestoreMeasurement } from './measurement.ts';
import { resets } from './resets.ts';
import { snapshotLoad } from './snapshot-load.ts';
import { virshRestore } from './virsh-restore.ts';
import { warmStandby } from './warm-standby.ts';

const sizesMiB = [128, 1024];
const rounds = { full: 20, quick: 5 };

/** Every way that is compared, in the order of the table. */
const measurements: readonly RestoreMeasurement[] = [
  coldRestore,
  warmStandby,
  resets,
  snapshotLoad,
  virshRestore,
];

/** How long it takes to bring one VM back: Staghorn's restore, and beside it what QEMU and libvirt offer. */
export async function restoreBench(options: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const memoryMiB of sizesMiB) {
    for (const measurement of measurements) {
      options.signal.throwIfAborted();
      options.onStep(`${measurement.name}, ${memoryMiB} MiB`);
      const count = options.quick ? rounds.quick : rounds.full;
      const values = await measurement.measure({ memoryMiB, rounds: count }, options);
      results.push(resultOf(measurement, memoryMiB, values));
    }
  }
  return results;
}

function resultOf(
  { name, limitMs }: RestoreMeasurement,
  memoryMiB: number,
  values: readonly number[],
): BenchResult {
  const metric = `${name}, request to running, ${memoryMiB} MiB`;
  const result = medianAtMost({ metric, unit: 'ms', values, limit: limitMs ?? 0 });
  return limitMs === null ? { ...result, goal: null, met: null } : result;
}
