import { afterEach, describe, expect, it } from 'vitest';
import type { Mutation } from '../mutation.ts';
import { describeCase, drawCase, type Case, type Step } from './property/case.ts';
import { Cleanup } from './property/cleanup.ts';
import { HostProgram } from './property/program.ts';
import { playCase, type Outcome } from './property/run.ts';

const step = (kind: Step['kind']): Step => ({ kind, afterMs: 600, pauseMs: 0 });
/** What a drain that ends too early misses is gone when the endpoints are started from disk. */
const restarts = [step('start again'), step('start again')];
/** What a time line that is given up has sent is still under way when the endpoints go back. */
const stepsBack = [step('go on'), step('go back')];
/** Longer than a busy machine takes from a cut to the saving of what has come. */
const delayMs = 500;
/** Of each flow. So seldom that it is quiet between two frames: only markers tell that more are to come. */
const ratePerSecond = 4;

function withSlowWire(seed: number, steps: readonly Step[]): Case {
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
const seed = 49;
const started = withSlowWire(seed, restarts);
const goneBack = withSlowWire(seed, stepsBack);

describe('the judge of random networks', { timeout: 120_000 }, () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  async function outcomeWith(drawn: Case, mutation?: Mutation): Promise<Outcome> {
    const program = await HostProgram.compile(mutation);
    try {
      return await playCase(drawn, program.path, cleanup);
    } finally {
      program.remove();
    }
  }

  it('finds nothing where frames are on a wire that nobody watches, and the drain waits for them', async () => {
    const { verdict, framesInFlight } = await outcomeWith(started);
    expect(verdict.problems, describeCase(started)).toEqual([]);
    expect(framesInFlight).toBeGreaterThan(0);
  });

  it.each(mutations)('finds it when $mistake', async (mutation) => {
    const found = await outcomeWith(started, mutation).then(
      ({ verdict }) => verdict.problems.join('; '),
      String,
    );
    // By those who receive; or by the agent itself, where a frame came between two looks at the counters.
    expect(found, describeCase(started)).toMatch(/ \d+ lost of | frames were diverted, but /);
  });

  it('finds nothing where a restore follows with markers what is on that wire', async () => {
    const { verdict, restores } = await outcomeWith(goneBack);
    expect(verdict.problems, describeCase(goneBack)).toEqual([]);
    expect(restores).toBe(1);
  });

  it('finds it when a restore does not wait for them', async () => {
    const { verdict } = await outcomeWith(goneBack, {
      mistake: 'nothing is listened for',
      file: 'src/agent/session/marker-exchange.ts',
      text: 'let missing = this.#missing(rounds.probe, sources);',
      instead: 'let missing: MarkerSource[] = [];',
    });
    expect(verdict.problems.join('; '), describeCase(goneBack)).toMatch(
      / [1-9]\d* (copied|duplicated|reordered)/,
    );
  });
});
