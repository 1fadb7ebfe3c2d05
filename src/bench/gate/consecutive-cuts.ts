import { mkdtempSync, rmSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { quantile, type BenchResult } from '../bench.ts';
import { oneBridge, twoSwitches, type NetworkKind } from './emulated-network.ts';
import { EndpointNetwork, type CutOutcome, type NetworkVerdict } from './endpoint-network.ts';
import type { GateBenchOptions } from './options.ts';

const packetsPerSecond = 22_000;
const packetsPerSecondGoal = 20_000;
const cuts = { full: 1000, quick: 50 };
const restores = { full: 100, quick: 5 };
const controlMs = { full: 20_000, quick: 5000 };
const betweenMs = 20;

/**
 * Many cuts and restores in a row, under traffic: nothing is lost, nothing comes twice, nothing comes out of order.
 * Beforehand a run without cuts shows whether two switches and a tunnel lose nothing by themselves on this machine;
 * where they do, a bridge takes their place.
 */
export async function consecutiveCuts(options: GateBenchOptions): Promise<BenchResult[]> {
  const controls: BenchResult[] = [];
  const wanted = await losesNothing(twoSwitches, controls, options);
  if (!wanted) await losesNothing(oneBridge, controls, options);
  const kind = wanted ? twoSwitches : oneBridge;
  return [...controls, await manyCuts(kind, options), await manyRestores(kind, options)];
}

async function losesNothing(kind: NetworkKind, controls: BenchResult[], options: GateBenchOptions) {
  options.onStep(`control run without cuts: ${kind.name}`);
  const control = await controlRun(kind, options);
  controls.push(control);
  return control.value === 0;
}

const within = <Result>(
  kind: NetworkKind,
  { signal }: GateBenchOptions,
  work: (network: EndpointNetwork) => Promise<Result>,
) => EndpointNetwork.within(kind, packetsPerSecond, signal, work);

async function controlRun(kind: NetworkKind, options: GateBenchOptions): Promise<BenchResult> {
  return within(kind, options, async (network) => {
    await network.run(options.quick ? controlMs.quick : controlMs.full);
    const result = describe(`without cuts, ${kind.name}`, await network.verdict(), '');
    return { ...result, goal: null, met: null };
  });
}

async function manyCuts(kind: NetworkKind, options: GateBenchOptions): Promise<BenchResult> {
  const count = options.quick ? cuts.quick : cuts.full;
  return within(kind, options, async (network) => {
    const outcomes: CutOutcome[] = [];
    for (let cut = 0; cut < count; cut++) {
      if (cut % 50 === 0) options.onStep(`cut ${cut + 1} of ${count}`);
      outcomes.push(await network.cut());
      await network.run(betweenMs);
    }
    return describe(`${count} cuts, ${kind.name}`, await network.verdict(), wordsOf(outcomes));
  });
}

/** What a restore goes back to is the last snapshot; what was sent since is given up, and must reach nobody. */
async function manyRestores(kind: NetworkKind, options: GateBenchOptions): Promise<BenchResult> {
  const count = options.quick ? restores.quick : restores.full;
  const directory = mkdtempSync(join(tmpdir(), 'staghorn-gate-bench-snapshots-'));
  try {
    return await within(kind, options, async (network) => {
      const outcomes: CutOutcome[] = [];
      for (let restore = 0; restore < count; restore++) {
        if (restore % 10 === 0) options.onStep(`restore ${restore + 1} of ${count}`);
        const snapshot = join(directory, `${restore}`);
        await mkdir(snapshot);
        outcomes.push(await network.snapshot(snapshot));
        await network.run(betweenMs);
        await network.restore(snapshot);
        await network.run(betweenMs);
      }
      return describe(`${count} restores, ${kind.name}`, await network.verdict(), wordsOf(outcomes));
    });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function wordsOf(outcomes: readonly CutOutcome[]): string {
  const median = (of: (outcome: CutOutcome) => number) => quantile(outcomes.map(of), 0.5);
  const frames = Math.round(median(({ framesInFlight }) => framesInFlight));
  const pauseMs = median((outcome) => outcome.pauseMs).toFixed(1);
  const fromRings = outcomes.reduce((sum, { framesFromRings }) => sum + framesFromRings, 0);
  const waitMs = Math.max(...outcomes.map(({ switchWaitMs }) => switchWaitMs)).toFixed(1);
  const dropped = outcomes.reduce((sum, outcome) => sum + outcome.dropped, 0);
  const starved = `a switch was without a processor for at most ${waitMs} ms of a cut`;
  return `; ${frames} frames held and ${pauseMs} ms in the median cut, ${fromRings} frames from rings in all; ${starved}, and ${dropped} frames were dropped by switches between arming and the end`;
}

function describe(what: string, verdict: NetworkVerdict, words: string): BenchResult {
  const { lost, dropped, duplicated, reordered, corrupted, misdirected, sent } = verdict;
  const faults = { lost, duplicated, reordered, corrupted, misdirected };
  const value = Object.values(faults).reduce((sum, count) => sum + count, 0);
  const own = dropped === 0 ? '' : `; the network's own sockets and queues dropped ${dropped}`;
  const rate = Math.round(verdict.packetsPerSecond);
  return {
    metric: `lost, duplicated, reordered: ${what}`,
    value,
    unit: 'frames',
    goal: `0, at ≥ ${packetsPerSecondGoal} packets/s`,
    met: value === 0 && rate >= packetsPerSecondGoal,
    reference: `${sent} sent at ${rate} packets/s${words}${value === 0 ? '' : `; ${JSON.stringify(faults)}`}${own}`,
  };
}
