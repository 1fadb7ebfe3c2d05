import { runCut } from '../../native/barrier.ts';
import { monotonicNs } from '../../native/clock.ts';
import { drain } from '../../network/drain.ts';
import { GatedPorts, type PortToGate } from '../../network/gated-ports.ts';
import { medianAtMost, quantile, type BenchResult } from '../bench.ts';
import { BenchNamespace, type BenchTap } from './namespace.ts';
import type { GateBenchOptions } from './options.ts';

const many = 500;
const attachLimitMs = 1000;
const rounds = { full: 10, quick: 3 };
const flips = { full: 100, quick: 20 };
const places = ['tap', 'egress'] as const;

/** A host with many ports: what it takes to put the gate on and off, to turn it, and to look at all queues. */
export function manyPorts(options: GateBenchOptions): Promise<BenchResult[]> {
  return BenchNamespace.within(async (namespace) => {
    options.onStep(`${many} taps`);
    const taps = namespace.taps(many);
    const results: BenchResult[] = [];
    for (const place of places) {
      options.onStep(`attaching and detaching, ${place}`);
      results.push(...attaching(place, taps, options));
    }
    options.onStep('flipping');
    results.push(await flipping(taps, options), await looking(taps, options));
    return results;
  });
}

const portsOf = (taps: readonly BenchTap[], place: 'tap' | 'egress'): PortToGate[] =>
  taps.map(({ name, ifindex, fd }) =>
    place === 'tap' ? { name, ifindex, place, fd } : { name, ifindex, place },
  );

function attaching(
  place: 'tap' | 'egress',
  taps: readonly BenchTap[],
  { quick, signal }: GateBenchOptions,
): BenchResult[] {
  const attachMs: number[] = [];
  const detachMs: number[] = [];
  for (let round = 0; round < (quick ? rounds.quick : rounds.full); round++) {
    signal.throwIfAborted();
    const gated = GatedPorts.create({ slots: many });
    try {
      const began = performance.now();
      gated.attach(portsOf(taps, place));
      const attached = performance.now();
      const problems = gated.detach();
      if (problems.length > 0) throw new Error(problems.join('; '));
      attachMs.push(attached - began);
      detachMs.push(performance.now() - attached);
    } finally {
      gated.close();
    }
  }
  const limit = attachLimitMs;
  return [
    medianAtMost({ metric: `attaching ${many} ports, ${place}`, unit: 'ms', values: attachMs, limit }),
    medianAtMost({ metric: `detaching ${many} ports, ${place}`, unit: 'ms', values: detachMs, limit }),
  ];
}

/** From the instant of the cut until the gate holds, with one port and with many, in turn. */
async function flipping(taps: readonly BenchTap[], options: GateBenchOptions): Promise<BenchResult> {
  const one: number[] = [];
  const all: number[] = [];
  const few = GatedPorts.create({ slots: 1 });
  const lots = GatedPorts.create({ slots: many });
  try {
    few.attach(portsOf(taps.slice(0, 1), 'tap'));
    lots.attach(portsOf(taps.slice(1), 'tap'));
    for (let flip = 0; flip < (options.quick ? flips.quick : flips.full); flip++) {
      one.push(await flipNs(few, taps.slice(0, 1), options));
      all.push(await flipNs(lots, taps.slice(1), options));
    }
  } finally {
    for (const gated of [few, lots]) {
      gated.detach();
      gated.close();
    }
  }
  const value = quantile(all, 0.5);
  // Both are a store and two looks at the clock: what differs is noise as long as the middle halves overlap.
  const [low, high] = [quantile(one, 0.25), quantile(one, 0.75)];
  return {
    metric: `turning the gate of ${many - 1} ports`,
    value: Math.round(value),
    unit: 'ns',
    goal: 'as with 1 port',
    met: value <= Math.max(high, 2 * quantile(one, 0.5)),
    reference: `1 port: ${Math.round(quantile(one, 0.5))} ns (half of all within ${Math.round(low)} to ${Math.round(high)}); ${many - 1} ports: up to ${Math.round(quantile(all, 0.75))} in 3 of 4`,
  };
}

/** Nobody reads these taps, and nothing is in them. */
const unread = { headerBytes: 0, readerThread: 0, qemuFd: -1, awaited: false, replaced: false };

async function flipNs(
  gated: GatedPorts,
  taps: readonly BenchTap[],
  { signal }: GateBenchOptions,
): Promise<number> {
  const times = await runCut({
    atNs: monotonicNs() + 500_000n,
    spinNs: 200_000,
    modeWords: [gated.gate.stateMemory],
    journal: null,
    taps: taps.map(({ fd }, port) => ({ fd, port, ...unread })),
    ringBoundNs: 0,
    writes: [],
    signal,
  });
  gated.pass();
  return Number(times.flippedNs - times.wokeNs);
}

/** What one look at all queues costs while a host drains, which nothing is in flight on. */
async function looking(taps: readonly BenchTap[], { quick, signal }: GateBenchOptions): Promise<BenchResult> {
  const gated = GatedPorts.create({ slots: many });
  try {
    gated.attach(portsOf(taps, 'tap'));
    const watched = taps.map(({ ifindex }) => ifindex);
    const values: number[] = [];
    for (let round = 0; round < (quick ? rounds.quick : rounds.full); round++) {
      const began = performance.now();
      const arrivals = () => gated.arrivals();
      await drain({ watched, arrivals, quietMs: 0, boundMs: 1000, signal });
      values.push(performance.now() - began);
    }
    return {
      ...medianAtMost({ metric: `a look at the queues of ${many} ports`, unit: 'ms', values, limit: 0 }),
      goal: null,
      met: null,
    };
  } finally {
    gated.detach();
    gated.close();
  }
}
