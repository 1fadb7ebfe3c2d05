import { afterEach, describe, expect, it } from 'vitest';
import type { Mutation } from '../mutation.ts';
import { describeCase, drawCase, type Case } from './property/case.ts';
import { Cleanup } from './property/cleanup.ts';
import { HostProgram } from './property/program.ts';
import { playCase } from './property/run.ts';

const tracker = 'src/network/drain-tracker.ts';
/** What a drain that ends too early misses is gone when the endpoints are started from disk. */
const steps = Array.from({ length: 2 }, () => ({ kind: 'start again', afterMs: 300, pauseMs: 0 }) as const);
/** Longer than a busy machine takes from a cut to the saving of what has come. */
const delayMs = 500;
/** Of the rate that comes to a tap: its queue grows as long as time runs. */
const slowTap = 0.4;

interface DrainMutation extends Mutation {
  /** A case in which frames are in flight where the mistake leaves them. */
  readonly drawn: Case;
}

function withSlowWire(seed: number): Case {
  const drawn = drawCase(seed);
  const delaysMs = Array.from({ length: drawn.topology.hosts }, () => delayMs);
  return { ...drawn, steps, topology: { ...drawn.topology, delaysMs } };
}

function withSlowTaps(seed: number): Case {
  const drawn = drawCase(seed);
  const stations = drawn.topology.stations.map((station) => {
    const { shape } = station;
    return shape === null ? station : { ...station, shape: { ...shape, headroom: slowTap } };
  });
  return { ...drawn, steps, topology: { ...drawn.topology, stations } };
}

const mutations: readonly DrainMutation[] = [
  {
    mistake: 'nothing is waited for',
    file: tracker,
    text: "if (this.#first === undefined || this.#last === undefined) return 'draining';",
    instead: "if (this.#first !== undefined) return 'drained';",
    drawn: withSlowWire(12),
  },
  {
    mistake: 'no markers are waited for, and frames are on the wire between two hosts',
    file: 'src/network/vm-ports.ts',
    text: 'awaited: () => awaited().length,',
    instead: 'awaited: () => 0,',
    drawn: withSlowWire(49),
  },
  {
    mistake: 'no queue is watched, and frames wait in that of a slow tap',
    file: tracker,
    text: 'this.#waiting = waiting.length > 0;',
    instead: 'this.#waiting = false;',
    drawn: withSlowTaps(29),
  },
];

describe('the judge of random networks finds it when', { timeout: 120_000 }, () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it.each(mutations)('$mistake', async ({ drawn, ...mutation }) => {
    const program = await HostProgram.compile(mutation);
    try {
      const found = await playCase(drawn, program.path, cleanup).then(
        ({ verdict }) => verdict.problems.join('; '),
        String,
      );
      process.stdout.write(`M ${found}\n`);
      // By those who receive; or by the agent itself, where a frame came between two looks at the counters.
      expect(found, describeCase(drawn)).toMatch(/ \d+ lost of | frames were diverted, but /);
    } finally {
      program.remove();
    }
  });
});
