import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';

import { quantile, type BenchOptions, type BenchResult } from '../bench.ts';
import { Fleet } from './fleet.ts';
import type { GuestLoad } from './guests.ts';
import { suspendByLibvirt } from './libvirt-suspend.ts';
import { barrier, parallelQmp, serialQmp, type Way } from './ways.ts';

const fleets = [1, 4, 10, 14];
const loads: readonly GuestLoad[] = ['mostly idle', 'busy'];
const rounds = { full: 40, quick: 10 };
const runMs = 60;
const pausedMs = 20;

const idleLimitsMs: Readonly<Record<number, number>> = { 4: 0.3, 10: 0.8, 14: 1 };
const busyLimit = { vms: 14, medianMs: 2, p95Ms: 10 };
const spreadLimit = { vms: 10, medianMs: 0.5 };

/** What Staghorn does: of the treatments of QEMU's threads the one with the tightest window (docs/decisions/0029). */
const staghorn = barrier('barrier', { held: 'by load', ahead: true, quiet: true });
const ways: readonly Way[] = [
  serialQmp,
  parallelQmp,
  staghorn,
  barrier('barrier, nobody held', { held: 'nobody', ahead: true, quiet: true }),
  barrier('barrier, vCPUs held too', { held: 'main threads and vCPUs', ahead: true, quiet: true }),
  barrier('barrier, nobody held, commands in one piece', { held: 'nobody', ahead: false, quiet: false }),
];

interface Measured {
  /** Last stop minus first, milliseconds, of each round. */
  readonly skews: number[];
  /** Longest pause minus shortest: how far guests' clocks move against each other. */
  readonly spreads: number[];
  /**
   * What QEMUs' main and monitor threads used for the stops, divided by the processors: no skew can be much shorter
   * while all of it is done at once. What they use beside stops is taken off.
   */
  readonly worksMs: number[];
}

/**
 * How long vCPUs take to quiesce: the third evaluation of the Staghorn of 2017 (2 to 6 ms at 1, 10 and 14 VMs a host).
 * All ways take turns on the same VMs.
 */
export async function quiesceBench(options: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const load of loads)
    for (const count of fleets) {
      options.onStep(`${count} VMs, ${load}`);
      const measured = await measure(count, load, options);
      results.push(...[...measured].flatMap(([way, found]) => describe(count, load, way, found)));
    }
  return [...results, ...(await suspendByLibvirt(options))];
}

async function measure(
  count: number,
  load: GuestLoad,
  { quick, signal }: BenchOptions,
): Promise<Map<Way, Measured>> {
  const fleet = await Fleet.start(count, load, signal);
  const found = new Map<Way, Measured>(ways.map((way) => [way, { skews: [], spreads: [], worksMs: [] }]));
  try {
    for (let round = 0; round < (quick ? rounds.quick : rounds.full); round++)
      for (const [way, { skews, spreads, worksMs }] of found) {
        const before = fleet.look();
        await delay(runMs, undefined, { signal });
        const after = fleet.look();
        const stops = await way.stop(fleet.vms, { before, after });
        await delay(pausedMs);
        worksMs.push(workMs(before, after, fleet.look(), stops));
        const resumes = await way.resume(fleet.vms, stops, { before, after });
        skews.push(spreadMs(stops));
        spreads.push(spreadMs(resumes.map((resume, place) => resume - stops[place]!)));
      }
    return found;
  } finally {
    await fleet.close();
  }
}

type Look = ReturnType<Fleet['look']>;

function workMs(before: Look, running: Look, stopped: Look, stops: readonly bigint[]): number {
  const usual = Number(running.workNs - before.workNs) / Number(running.atNs - before.atNs);
  const lastStopNs = stops.reduce((a, b) => (a > b ? a : b));
  const usedNs = Number(stopped.workNs - running.workNs) - usual * Number(lastStopNs - running.atNs);
  return Math.max(0, usedNs) / availableParallelism() / 1e6;
}

function spreadMs(instants: readonly bigint[]): number {
  const sorted = [...instants].sort((a, b) => (a < b ? -1 : 1));
  return Number(sorted.at(-1)! - sorted[0]!) / 1e6;
}

function describe(
  count: number,
  load: GuestLoad,
  way: Way,
  { skews, spreads, worksMs }: Measured,
): BenchResult[] {
  if (count === 1) return [];
  const asked = way === staghorn;
  const what = `${count} VMs ${load}, ${way.name}`;
  const isBusy = load === 'busy' && count === busyLimit.vms;
  const skewLimit = load === 'busy' ? (isBusy ? busyLimit.medianMs : null) : (idleLimitsMs[count] ?? null);
  const results = [row(`skew of stops, ${what}`, skews, 0.5, asked ? skewLimit : null)];
  if (isBusy)
    results.push(row(`skew of stops, 95 of 100, ${what}`, skews, 0.95, asked ? busyLimit.p95Ms : null));
  const limit = asked && load === 'mostly idle' && count === spreadLimit.vms ? spreadLimit.medianMs : null;
  if (asked) results.push(row(`work of QEMUs for the stops, by the processors, ${what}`, worksMs, 0.5, null));
  return [...results, row(`spread of pauses, ${what}`, spreads, 0.5, limit)];
}

function row(metric: string, samples: readonly number[], q: number, limit: number | null): BenchResult {
  const value = Number(quantile(samples, q).toPrecision(3));
  const [p95, most] = [quantile(samples, 0.95), Math.max(...samples)].map((ms) => ms.toFixed(2));
  return {
    metric,
    value,
    unit: 'ms',
    goal: limit === null ? null : `≤ ${limit}`,
    met: limit === null ? null : value <= limit,
    reference: `${samples.length} rounds; p95 ${p95}, max ${most}`,
    samples,
  };
}
