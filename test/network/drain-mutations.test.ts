import { afterEach, describe, expect, it } from 'vitest';
import type { Mutation } from '../mutation.ts';
import { describeCase, drawCase, type Case } from './property/case.ts';
import { Cleanup } from './property/cleanup.ts';
import { HostProgram } from './property/program.ts';
import { playCase, type Outcome } from './property/run.ts';

/** What a drain that ends too early misses is gone when the endpoints are started from disk. */
const steps = Array.from({ length: 2 }, () => ({ kind: 'start again', afterMs: 600, pauseMs: 0 }) as const);
/** Longer than a busy machine takes from a cut to the saving of what has come. */
const delayMs = 500;
/** Of each flow. So seldom that it is quiet between two frames: only markers tell that more are to come. */
const ratePerSecond = 4;

function withSlowWire(seed: number): Case {
  const drawn = drawCase(seed);
  const delaysMs = Array.from({ length: drawn.topology.hosts }, () => delayMs);
  const flows = [...drawn.flows].map(
    ([from, own]) => [from, own.map((flow) => ({ ...flow, ratePerSecond }))] as const,
  );
  return { ...drawn, steps, flows: new Map(flows), topology: { ...drawn.topology, delaysMs } };
}

const mutations: readonly Mutation[] = [
  {
    mistake: 'nothing is waited for',
    file: 'src/network/drain-tracker.ts',
    text: "if (this.#first === undefined || this.#last === undefined) return 'draining';",
    instead: "if (this.#first !== undefined) return 'drained';",
  },
  {
    mistake: 'no markers are waited for',
    file: 'src/network/vm-ports.ts',
    text: 'awaited: () => awaited().length,',
    instead: 'awaited: () => 0,',
  },
];

/** Small: two stations on two hosts. */
const drawn = withSlowWire(49);

describe('the judge of random networks', { timeout: 120_000 }, () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function outcomeWith(mutation?: Mutation): Promise<Outcome> {
    const program = await HostProgram.compile(mutation);
    try {
      return await playCase(drawn, program.path, cleanup);
    } finally {
      program.remove();
    }
  }

  it('finds nothing where frames are on a wire that nobody watches, and the drain waits for them', async () => {
    const { verdict, framesInFlight } = await outcomeWith();
    expect(verdict.problems, describeCase(drawn)).toEqual([]);
    expect(framesInFlight).toBeGreaterThan(0);
  });

  it.each(mutations)('finds it when $mistake', async (mutation) => {
    const found = await outcomeWith(mutation).then(({ verdict }) => verdict.problems.join('; '), String);
    // By those who receive; or by the agent itself, where a frame came between two looks at the counters.
    expect(found, describeCase(drawn)).toMatch(/ \d+ lost of | frames were diverted, but /);
  });
});
