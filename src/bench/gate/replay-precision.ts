import { GatedPorts } from '../../network/gated-ports.ts';
import { medianAtMost, quantile, type BenchResult } from '../bench.ts';
import type { Arrival } from './arrivals.ts';
import { BenchNamespace } from './namespace.ts';
import type { GateBenchOptions } from './options.ts';

const ports = 4;
const seconds = 0.2;
/** "Moderate load", and four times that. */
const rates = [5000, 20_000];
const medianLimitUs = 100;
const p99LimitUs = 1000;
const rounds = { full: 10, quick: 3 };
const resumeAfterMs = 30;

/**
 * How far from its time a frame comes into the hands of the reader of its tap: counted from the stop when it came,
 * and from the resumption when it was read.
 */
export async function replayPrecision(options: GateBenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const rate of rates) {
    const errorsUs: number[] = [];
    const replayersUs: number[] = [];
    for (let round = 0; round < (options.quick ? rounds.quick : rounds.full); round++) {
      options.onStep(`replay at ${rate} packets/s, round ${round + 1}`);
      const measured = await holdAndReplay(rate, options);
      errorsUs.push(...measured.errorsUs);
      replayersUs.push(measured.replayerMedianUs);
    }
    results.push(...describe(rate, errorsUs, replayersUs));
  }
  return results;
}

function holdAndReplay(rate: number, { load, signal }: GateBenchOptions) {
  return BenchNamespace.within(async (namespace) => {
    const taps = namespace.taps(ports);
    const gated = GatedPorts.create({ slots: ports });
    try {
      gated.attach(taps.map(({ name, fd, ifindex }) => ({ name, fd, ifindex, place: 'tap' })));
      gated.hold();
      const devices = taps.map(({ name }) => name);
      const frames = rate * seconds;
      await load.send({ devices, frames, packetsPerSecond: rate, minBytes: 60, maxBytes: 1514 });
      const cameNs = devices.map((device) =>
        [...gated.held()].filter(({ port }) => port === device).map(({ atNs }) => atNs),
      );
      const reading = await load.read(taps.map(({ fd }) => fd));
      const stopNs = cameNs.flat().reduce((first, atNs) => (atNs < first ? atNs : first));
      const resumeNs = process.hrtime.bigint() + BigInt(resumeAfterMs * 1e6);
      const shiftNs = resumeNs - stopNs;
      const report = await gated.replay({ resumption: () => ({ shiftNs, notBeforeNs: resumeNs }), signal });
      gated.assertDelivered(report);
      const arrivals = await reading.end();
      if (arrivals.length !== frames) throw new Error(`${arrivals.length} of ${frames} frames were read`);
      const errorUs = ({ tap, number, atNs }: Arrival) =>
        Number(atNs - shiftNs - cameNs[tap]![number]!) / 1e3;
      return { errorsUs: arrivals.map(errorUs), replayerMedianUs: report.latenessNs.median / 1e3 };
    } finally {
      gated.detach();
      gated.close();
    }
  });
}

function describe(rate: number, errorsUs: readonly number[], replayersUs: readonly number[]): BenchResult[] {
  const distances = errorsUs.map(Math.abs);
  const p99 = quantile(distances, 0.99);
  const median = medianAtMost({
    metric: `error of the time offset at the reader, ${rate} packets/s, median`,
    unit: 'µs',
    values: distances,
    limit: medianLimitUs,
  });
  const replayer = quantile(replayersUs, 0.5).toFixed(1);
  return [
    { ...median, reference: `${median.reference}; at the replayer ${replayer}` },
    {
      ...median,
      metric: `error of the time offset at the reader, ${rate} packets/s, p99`,
      value: Number(p99.toPrecision(4)),
      goal: `≤ ${p99LimitUs}`,
      met: p99 <= p99LimitUs,
    },
  ];
}
