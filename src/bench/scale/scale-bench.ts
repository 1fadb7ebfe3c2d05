import { medianAtMost, quantile, type BenchOptions, type BenchResult } from '../bench.ts';
import { measureScale, type ScaleMeasurement } from './measure.ts';

const vmsPerHost = 75;
const sizes = { full: [10, 100, 1000], quick: [10, 100] };
const rounds = { full: 5, quick: 3 };
const toCutLimitMs = 2000;
const memoryLimitMiB = 1536;
/** Of one host's share, from one size to one ten times as large: no worse than linear, and some noise. */
const growthLimit = 1.5;

/** What a snapshot costs the controller at cluster scale: real controller, real messages, simulated agents. */
export async function scaleBench({ quick, onStep, signal }: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  const cpuPerHostMs: number[] = [];
  for (const hosts of quick ? sizes.quick : sizes.full) {
    onStep(`${hosts} hosts, ${hosts * vmsPerHost} VMs`);
    const count = quick ? rounds.quick : rounds.full;
    // The first one is of code that was never run: users meet it once.
    const [, ...measured] = await measureScale({ hosts, vmsPerHost, rounds: count + 1, signal });
    results.push(...describe(hosts, measured));
    cpuPerHostMs.push(
      quantile(
        measured.map(({ cpuMs }) => cpuMs),
        0.5,
      ) / hosts,
    );
  }
  return [...results, ...growth(cpuPerHostMs)];
}

function describe(hosts: number, measured: readonly ScaleMeasurement[]): BenchResult[] {
  const size = `${hosts} hosts, ${hosts * vmsPerHost} VMs`;
  const figure = (metric: string, unit: string, of: (one: ScaleMeasurement) => number, limit?: number) => {
    const result = medianAtMost({
      metric: `${metric}, ${size}`,
      unit,
      values: measured.map(of),
      limit: limit ?? 0,
    });
    return limit === undefined ? { ...result, goal: null, met: null } : result;
  };
  return [
    figure('request to cut', 'ms', ({ toCutMs }) => toCutMs, toCutLimitMs),
    figure('request to all reports of the cut', 'ms', ({ toReportsMs }) => toReportsMs),
    figure('request to sealed', 'ms', ({ toSealedMs }) => toSealedMs),
    figure('CPU of the controller until these reports', 'ms', ({ cpuToReportsMs }) => cpuToReportsMs),
    figure('CPU of all agents until then', 'ms', ({ agentsCpuToReportsMs }) => agentsCpuToReportsMs),
    figure('CPU of the controller for a snapshot', 'ms', ({ cpuMs }) => cpuMs),
    figure('memory of the controller, peak', 'MiB', ({ peakRssMiB }) => peakRssMiB, memoryLimitMiB),
    figure('connecting, without logins', 'ms', ({ connectMs }) => connectMs),
  ];
}

function growth(cpuPerHostMs: readonly number[]): BenchResult[] {
  return cpuPerHostMs.slice(1).map((value, place) => {
    const ratio = value / cpuPerHostMs[place]!;
    return {
      metric: `CPU for one host, ${10 ** (place + 2)} hosts against ${10 ** (place + 1)}`,
      value: Number(ratio.toPrecision(3)),
      unit: '×',
      goal: `≤ ${growthLimit}`,
      met: ratio <= growthLimit,
      reference: `${cpuPerHostMs[place]!.toPrecision(3)} ms and ${value.toPrecision(3)} ms`,
    };
  });
}
