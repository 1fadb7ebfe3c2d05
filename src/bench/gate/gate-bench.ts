import type { BenchOptions, BenchResult } from '../bench.ts';
import { consecutiveCuts } from './consecutive-cuts.ts';
import { holding } from './holding.ts';
import { Load } from './load.ts';
import { manyPorts } from './many-ports.ts';
import { programCost } from './program-cost.ts';
import { replayPrecision } from './replay-precision.ts';
import { throughput } from './throughput.ts';

const parts = [programCost, throughput, replayPrecision, holding, manyPorts, consecutiveCuts];

/** What the gate costs, how exactly it replays, how much it holds, and whether anything is ever lost. Needs root. */
export async function gateBench(options: BenchOptions): Promise<BenchResult[]> {
  const load = await Load.compile(options.signal);
  try {
    const results: BenchResult[] = [];
    for (const part of parts) results.push(...(await part({ ...options, load })));
    return results;
  } finally {
    load.close();
  }
}
