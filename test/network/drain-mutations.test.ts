import { afterEach, describe, expect, it } from 'vitest';
import type { Mutation } from '../mutation.ts';
import { describeCase, drawCase } from './property/case.ts';
import { Cleanup } from './property/cleanup.ts';
import { HostProgram } from './property/program.ts';
import { playCase } from './property/run.ts';

const tracker = 'src/network/drain-tracker.ts';
interface DrainMutation extends Mutation {
  /** A case in which frames are in flight where the mistake leaves them. */
  readonly seed: number;
}
const mutations: readonly DrainMutation[] = [
  {
    mistake: 'nothing is waited for',
    file: tracker,
    text: "if (this.#first === undefined || this.#last === undefined) return 'draining';",
    instead: "if (this.#first !== undefined) return 'drained';",
    seed: 8,
  },
  {
    mistake: 'no markers are waited for, and frames are on the wire between two hosts',
    file: 'src/network/vm-ports.ts',
    text: 'awaited: () => awaited().length,',
    instead: 'awaited: () => 0,',
    seed: 8,
  },
  {
    mistake: 'no queue is watched, and frames wait in that of a slow tap',
    file: tracker,
    text: 'this.#waiting = waiting.length > 0;',
    instead: 'this.#waiting = false;',
    seed: 8,
  },
];

/** What a drain that ends too early misses is gone when the endpoints are started from disk. */
const steps = Array.from({ length: 3 }, () => ({ kind: 'start again', afterMs: 100, pauseMs: 0 }) as const);

describe('the judge of random networks finds it when', { timeout: 120_000 }, () => {
  const cleanup = new Cleanup();
  afterEach(() => cleanup.run());

  it.each(mutations)('$mistake', async ({ seed, ...mutation }) => {
    const program = await HostProgram.compile(mutation);
    const drawn = { ...drawCase(seed), steps };
    try {
      const { verdict } = await playCase(drawn, program.path, cleanup);
      expect(verdict.lost, describeCase(drawn)).toBeGreaterThan(0);
    } finally {
      program.remove();
    }
  });
});
