import { Gate } from '../../native/gate.ts';
import { quantile, type BenchResult } from '../bench.ts';
import { BenchNamespace, type BenchTap } from './namespace.ts';
import type { GateBenchOptions } from './options.ts';

const pairs = { full: 100, quick: 25 };
const framesARun = 10_000;
const frameSizes = [60, 1514];
const resamples = 4000;

/** Frames from tap to tap through a bridge with and without the gate, in turn: what the gate costs a whole path. */
export async function throughput(options: GateBenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const bytes of frameSizes) {
    options.onStep(`throughput, ${bytes} bytes`);
    results.push(describe(bytes, await measure(bytes, options)));
  }
  return results;
}

/** Frames a second of one core: without the gate, with it, and without it again. */
interface Round {
  readonly before: number;
  readonly gated: number;
  readonly after: number;
}

function measure(bytes: number, { load, quick, signal }: GateBenchOptions): Promise<Round[]> {
  return BenchNamespace.within(async (namespace) => {
    const [from, to] = namespace.taps(2) as [BenchTap, BenchTap];
    await namespace.bridge([from, to]);
    const gate = Gate.create({ slots: 2 });
    const taps = [from, to];
    const run = async () => {
      signal.throwIfAborted();
      return framesARun / ((await load.pump([from.fd, to.fd], framesARun, bytes)) / 1e9);
    };
    try {
      await run();
      const rounds: Round[] = [];
      for (let pair = 0; pair < (quick ? pairs.quick : pairs.full); pair++) {
        const before = await run();
        for (const [slot, { fd }] of taps.entries()) gate.attachTap({ fd, slot });
        const gated = await run();
        for (const { fd } of taps) gate.detachTap(fd);
        rounds.push({ before, gated, after: await run() });
      }
      return rounds;
    } finally {
      gate.close();
    }
  });
}

/**
 * The goal is met if the gate makes no more difference than there is between two runs without it: the median of the
 * paired differences lies within the middle 95 % of those.
 */
function describe(bytes: number, rounds: readonly Round[]): BenchResult {
  const percent = (one: number, other: number) => (one / other - 1) * 100;
  const differences = rounds.map(({ before, gated, after }) => percent(gated, (before + after) / 2));
  const noise = rounds.map(({ before, after }) => Math.abs(percent(after, before)));
  const value = quantile(differences, 0.5);
  const limit = quantile(noise, 0.95);
  const [low, high] = confidenceOfMedian(differences);
  const rate = quantile(
    rounds.map(({ before }) => before),
    0.5,
  );
  return {
    metric: `throughput with the gate, ${bytes} bytes`,
    value: Number(value.toFixed(2)),
    unit: '%',
    goal: `within noise (± ${limit.toFixed(2)})`,
    met: Math.abs(value) <= limit || value > 0,
    reference: `${rounds.length} pairs, 95 % confidence ${low.toFixed(2)} to ${high.toFixed(2)}; ${Math.round(rate)} frames/s of one core without`,
  };
}

/** The middle 95 % of medians of samples drawn with replacement (the percentile bootstrap). */
function confidenceOfMedian(values: readonly number[]): [number, number] {
  const draw = () => values[Math.floor(Math.random() * values.length)]!;
  const medians = Array.from({ length: resamples }, () => quantile(Array.from(values, draw), 0.5));
  return [quantile(medians, 0.025), quantile(medians, 0.975)];
}
