import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { describeCase, drawCase } from './property/case.ts';
import { Cleanup } from './property/cleanup.ts';
import { HostProgram } from './property/program.ts';
import { playCase } from './property/run.ts';

/** Chosen for their variety: one to four hosts, each kind of tunnel, each kind of step. */
const seedsByDefault = [8, 10, 22, 30];

function seeds(): number[] {
  const { STAGHORN_SEED: first, STAGHORN_RUNS: runs } = process.env;
  if (first === undefined && runs === undefined) return seedsByDefault;
  const from = first === undefined ? Math.floor(Date.now() / 1000) : Number(first);
  return Array.from({ length: Number(runs ?? 1) }, (_, place) => from + place);
}

describe('random networks under random traffic, cut at random instants', () => {
  let program: HostProgram;
  const cleanup = new Cleanup();

  beforeAll(async () => {
    program = await HostProgram.compile();
  });

  afterEach(() => cleanup.run());

  afterAll(() => {
    program.remove();
  });

  it.each(seeds())(
    'lose, copy, reorder and damage no frame (seed %i)',
    { timeout: 120_000 },
    async (seed) => {
      const drawn = drawCase(seed);
      const description = describeCase(drawn);
      const outcome = await playCase(drawn, program.path, cleanup).catch((cause: unknown) => {
        throw new Error(`${String(cause)}\n${description}`, { cause });
      });
      const { verdict, snapshots, restores, framesInFlight, rateShare } = outcome;
      const text = `${verdict.sent} frames, ${snapshots} snapshots with ${framesInFlight} frames in flight`;
      process.stdout.write(`seed ${seed}: ${text}, ${restores} restores, ${rateShare} of the rates\n`);
      expect(verdict.problems, description).toEqual([]);
      expect(snapshots, description).toBeGreaterThan(0);
      expect(verdict.sent).toBeGreaterThan(0);
    },
  );
});
