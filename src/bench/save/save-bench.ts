import { rm } from 'node:fs/promises';
import { join } from 'node:path';

import { medianAtMost, quantile, type BenchOptions, type BenchResult } from '../bench.ts';
import { BenchVm } from './bench-vm.ts';
import { idleBytes } from './idle-bytes.ts';
import { pauseByFork, pauseByMigration, type Pause } from './pause.ts';
import { saveAndCopy, type SaveRound } from './throughput.ts';
import { timeVirshSave } from './virsh.ts';

const sizesMiB = [128, 512, 1024, 2048];
const comparedMiB = 1024;
const dirtyFraction = 0.8;
const rounds = { full: 15, quick: 5 };
const copies = { full: 7, quick: 3 };
const limits = { pauseMs: 15, ratio: 1.5, throughput: 0.7, timesShorter: 50, secondOfFirst: 0.1 };

/** What saving RAM costs: the pause, the copy after it, the bytes of a second snapshot; beside what others take. */
export async function saveBench(options: BenchOptions): Promise<BenchResult[]> {
  const medians = new Map<number, number>();
  const shares: string[] = [];
  const results: BenchResult[] = [];
  for (const memoryMiB of sizesMiB) {
    const pauses = await withVm(memoryMiB, options, (vm) => measurePauses(vm, options));
    const values = pauses.map(({ ms }) => ms);
    medians.set(memoryMiB, quantile(values, 0.5));
    shares.push(shareOf(pauses));
    const metric = `pause by fork, ${memoryMiB} MiB, ${dirtyFraction * 100} % dirty`;
    results.push(medianAtMost({ metric, unit: 'ms', values, limit: limits.pauseMs }));
  }
  results.push(ratioOf([...medians.values()], shares));
  results.push(...(await compare(medians.get(comparedMiB)!, options)));
  results.push(await secondOfFirst(options));
  return results;
}

async function withVm<Result>(
  memoryMiB: number,
  { onStep, signal }: BenchOptions,
  measure: (vm: BenchVm) => Promise<Result>,
): Promise<Result> {
  onStep(`a VM of ${memoryMiB} MiB`);
  const vm = await BenchVm.start(memoryMiB, signal);
  try {
    await vm.dirty(dirtyFraction);
    return await measure(vm);
  } finally {
    await vm.stop();
  }
}

async function measurePauses(vm: BenchVm, { quick, signal }: BenchOptions): Promise<Pause[]> {
  const pauses: Pause[] = [];
  for (let round = 0; round < (quick ? rounds.quick : rounds.full); round++) {
    signal.throwIfAborted();
    pauses.push(await pauseByFork(vm));
  }
  return pauses;
}

/** Where the pause goes: only the second can grow with RAM. */
function shareOf(pauses: readonly Pause[]): string {
  const median = (values: number[]) => quantile(values, 0.5).toFixed(1);
  const devices = median(pauses.map(({ devicesMs }) => devicesMs));
  return `${median(pauses.map(({ ms }) => ms))} (devices ${devices}, fork ${median(pauses.map(({ forkMs }) => forkMs))})`;
}

function ratioOf(medians: readonly number[], shares: readonly string[]): BenchResult {
  const value = Number((Math.max(...medians) / Math.min(...medians)).toFixed(2));
  return {
    metric: 'longest median pause to shortest, all sizes',
    ...{ value, unit: 'times', goal: `≤ ${limits.ratio}`, met: value <= limits.ratio },
    reference: shares.join(', '),
  };
}

/** At one size: throughput against `cp`, and what QEMU and libvirt take for the same. */
async function compare(forkMs: number, options: BenchOptions): Promise<BenchResult[]> {
  const results = await withVm(comparedMiB, options, async (vm) => {
    const saves: SaveRound[] = [];
    for (let round = 0; round < (options.quick ? copies.quick : copies.full); round++) {
      options.onStep(`save and cp, round ${round + 1}`);
      saves.push(await saveAndCopy(vm));
    }
    const file = join(vm.directory, 'migrated');
    const migrationMs = await pauseByMigration(vm, file);
    await rm(file);
    return [
      throughput('save after resume against cp', saves, ({ copyMs, saveMs }) => [copyMs, saveMs]),
      throughput('the same, both until on disk', saves, ({ copySyncedMs, saveSyncedMs }) => [
        copySyncedMs,
        saveSyncedMs,
      ]),
      timesShorter("QEMU's stop, migrate to a file, cont", migrationMs, forkMs),
    ];
  });
  options.onStep('virsh save');
  const virsh = await timeVirshSave(comparedMiB, dirtyFraction).catch((error: Error) => error.message);
  return [...results, timesShorter('virsh save', virsh, forkMs)];
}

function throughput(
  metric: string,
  saves: readonly SaveRound[],
  timesOf: (round: SaveRound) => readonly [copyMs: number, saveMs: number],
): BenchResult {
  const value = Number(
    quantile(
      saves.map(timesOf).map(([copy, save]) => copy / save),
      0.5,
    ).toFixed(3),
  );
  const rate = (index: 0 | 1) =>
    quantile(
      saves.map((round) => round.dataBytes / 2 ** 20 / (timesOf(round)[index] / 1e3)),
      0.5,
    );
  return {
    metric: `${metric}, ${comparedMiB} MiB`,
    ...{ value, unit: 'of it', goal: `≥ ${limits.throughput}`, met: value >= limits.throughput },
    reference: `${rate(1).toFixed(0)} MiB/s, cp ${rate(0).toFixed(0)} MiB/s, ${saves.length} rounds in turn`,
  };
}

function timesShorter(of: string, ms: number | string, forkMs: number): BenchResult {
  const metric = `pause by fork against ${of}, ${comparedMiB} MiB`;
  const goal = `≥ ${limits.timesShorter}`;
  if (typeof ms === 'string')
    return { metric, value: 0, unit: 'times', goal, met: null, reference: `not run: ${ms}` };
  const value = Number((ms / forkMs).toFixed(0));
  const met = value >= limits.timesShorter;
  return {
    metric,
    value,
    unit: 'times',
    goal,
    met,
    reference: `${ms.toFixed(0)} ms, fork ${forkMs.toFixed(1)} ms`,
  };
}

async function secondOfFirst(options: BenchOptions): Promise<BenchResult> {
  options.onStep(`two snapshots of an idle guest of ${comparedMiB} MiB`);
  const { firstBytes, secondBytes } = await idleBytes(comparedMiB, options);
  const value = Number((secondBytes / firstBytes).toFixed(3));
  return {
    metric: `bytes of the second snapshot to the first, idle guest of ${comparedMiB} MiB`,
    ...{ value, unit: 'of it', goal: `≤ ${limits.secondOfFirst}`, met: value <= limits.secondOfFirst },
    reference: `${(firstBytes / 2 ** 20).toFixed(1)} MiB, then ${(secondBytes / 2 ** 20).toFixed(1)} MiB`,
  };
}
