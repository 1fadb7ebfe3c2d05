import { closeSync } from 'node:fs';

import { Gate } from '../../native/gate.ts';
import { enableProgramStats, readProgramStats } from '../../native/program-stats.ts';
import { setTapProgram } from '../../native/tap.ts';
import { addClsact, addEgressProgram } from '../../native/traffic-control.ts';
import { medianAtMost, type BenchResult } from '../bench.ts';
import { BenchNamespace, type BenchTap } from './namespace.ts';
import type { GateBenchOptions } from './options.ts';

const limitNs = 200;
const rounds = { full: 15, quick: 5 };
const framesARound = 20_000;
/** The smallest Ethernet frame, and the largest without jumbo frames; the frame check sequence is not counted. */
const frameSizes = { small: 60, large: 1514 };
const places = ['tap', 'egress'] as const;

/** What the gate's program costs a frame that passes, by the kernel's own account. */
export async function programCost(options: GateBenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const place of places) {
    for (const [size, bytes] of Object.entries(frameSizes)) {
      options.onStep(`cost of the program, ${place}, ${size} frames`);
      const values = await costNs(place, bytes, options);
      const metric = `program in pass mode, ${place}, ${bytes} bytes`;
      results.push(medianAtMost({ metric, unit: 'ns/frame', values, limit: limitNs }));
    }
  }
  return results;
}

function costNs(place: (typeof places)[number], bytes: number, options: GateBenchOptions): Promise<number[]> {
  return BenchNamespace.within(async (namespace) => {
    const [from, to] = namespace.taps(2) as [BenchTap, BenchTap];
    await namespace.bridge([from, to]);
    const gate = Gate.create({ slots: 1 });
    const program = gate.loadProgram(0, place);
    const statistics = enableProgramStats();
    try {
      attach(place, to, program);
      const costs: number[] = [];
      for (let round = 0; round < (options.quick ? rounds.quick : rounds.full); round++) {
        options.signal.throwIfAborted();
        const before = readProgramStats(program);
        await options.load.pump([from.fd, to.fd], framesARound, bytes);
        const after = readProgramStats(program);
        costs.push((after.runTimeNs - before.runTimeNs) / (after.runs - before.runs));
      }
      return costs;
    } finally {
      closeSync(statistics);
      closeSync(program);
      gate.close();
    }
  });
}

/** The program goes with the device at the end. */
function attach(place: (typeof places)[number], { fd, ifindex }: BenchTap, program: number): void {
  if (place === 'tap') return setTapProgram(fd, program);
  addClsact(ifindex);
  addEgressProgram(ifindex, program);
}
