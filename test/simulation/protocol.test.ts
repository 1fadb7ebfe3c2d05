import { expect, it } from 'vitest';

import { describeFailure, explore, runScenario } from '../../src/simulation/index.ts';

const firstSeed = Number(process.env['STAGHORN_SEED'] ?? 1);
const runs = Number(process.env['STAGHORN_RUNS'] ?? 2000);

it(`keeps its rules under faults of any kind at any step (${runs} seeds from ${firstSeed})`, async () => {
  const { failure, outcomes } = await explore(firstSeed, runs);
  if (failure !== null) expect.fail(describeFailure(failure));
  // Otherwise nothing was put to the test.
  if (runs < 500) return;
  for (const outcome of ['succeeded', 'failed', 'cancelled', 'died with its controller'])
    expect(outcomes.get(outcome)).toBeGreaterThan(runs / 50);
}, 1_200_000);

it('gives the same run for the same seed', async () => {
  // Seeds differ in everything; some have faults, some have not.
  for (const seed of [3, 4, 5]) {
    const [first, second] = [await runScenario(seed), await runScenario(seed)];
    // Snapshots are named after the day and the hour.
    const plain = (lines: readonly string[]) => lines.map((line) => line.replaceAll(/\d{8}T\S+/g, ''));
    expect(plain(first.trace)).toEqual(plain(second.trace));
    expect(first.outcomes).toEqual(second.outcomes);
  }
});
