import { GatedPorts } from '../../network/gated-ports.ts';
import type { BenchResult } from '../bench.ts';
import { faultsOf } from './arrivals.ts';
import { BenchNamespace } from './namespace.ts';

import type { GateBenchOptions } from './options.ts';

const frames = 200_000;
const ports = 4;
const ringBytes = 2 ** 30;
const sizes = [
  { name: '64 bytes', minBytes: 64, maxBytes: 64 },
  { name: '60 to 1514 bytes', minBytes: 60, maxBytes: 1514 },
];

/** Keeps many frames at once, and gives them back at once: none lost, none reordered. */
export async function holding(options: GateBenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const size of sizes) {
    options.onStep(`holding ${frames} frames of ${size.name}`);
    results.push(await holdMany(size, options));
  }
  return results;
}

function holdMany(size: (typeof sizes)[number], { load, signal }: GateBenchOptions): Promise<BenchResult> {
  return BenchNamespace.within(async (namespace) => {
    const taps = namespace.taps(ports);
    const gated = GatedPorts.create({ slots: ports, ringBytes });
    try {
      gated.attach(taps.map(({ name, fd, ifindex }) => ({ name, fd, ifindex, place: 'tap' })));
      gated.hold();
      const sending = performance.now();
      const devices = taps.map(({ name }) => name);
      await load.send({ devices, frames, packetsPerSecond: 0, ...size });
      gated.assertConserved();
      const listing = performance.now();
      const heap = listHeld(gated);
      const reading = await load.read(taps.map(({ fd }) => fd));
      const replaying = performance.now();
      const resumption = () => ({ shiftNs: 0n, notBeforeNs: 0n });
      gated.assertDelivered(await gated.replay({ resumption, signal }));
      const ended = performance.now();
      const { lost, duplicated, reordered, damaged } = faultsOf(
        await reading.end(),
        new Array<number>(ports).fill(frames / ports),
      );
      const faults = lost + duplicated + reordered + damaged;
      const seconds = ([listing - sending, replaying - listing, ended - replaying] as const).map((ms) =>
        (ms / 1e3).toFixed(2),
      );
      return {
        metric: `${frames} frames of ${size.name} held and replayed`,
        value: faults,
        unit: 'faults',
        goal: '0 lost, twice, out of order, damaged',
        met: faults === 0,
        reference: `hold ${seconds[0]} s, list ${seconds[1]} s, replay ${seconds[2]} s; listing took ${heap} MiB beside the ring`,
      };
    } finally {
      gated.detach();
      gated.close();
    }
  });
}

/** Goes through all that is held, as whoever writes it to a file does; returns the most memory that this took. */
function listHeld(gated: GatedPorts): number {
  const used = () => {
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const before = used();
  let [count, peak] = [0, before];
  for (const { frame } of gated.held()) {
    if (frame.length === 0) throw new Error('an empty frame was held');
    if (++count % 1000 === 0) peak = Math.max(peak, used());
  }
  if (count !== frames) throw new Error(`${count} of ${frames} frames are held`);
  return Math.round((peak - before) / 2 ** 20);
}
