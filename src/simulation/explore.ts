import { runScenario, type ScenarioResult } from './scenario.ts';

export interface Exploration {
  readonly runs: number;
  /** The first run in which a rule was broken; null: none was. */
  readonly failure: ScenarioResult | null;
  /** How many operations ended how. */
  readonly outcomes: ReadonlyMap<string, number>;
}

/** Runs scenarios with successive seeds until one breaks a rule. */
export async function explore(firstSeed: number, runs: number): Promise<Exploration> {
  const outcomes = new Map<string, number>();
  for (let run = 0; run < runs; run++) {
    const result = await runScenario(firstSeed + run);
    for (const outcome of result.outcomes) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    if (result.violations.length > 0) return { runs: run + 1, failure: result, outcomes };
  }
  return { runs, failure: null, outcomes };
}

/** What happened in a run, for people. */
export function describeFailure({ seed, violations, trace }: ScenarioResult): string {
  const broken = violations.map(({ rule, who }) => `  ${rule}: ${who}`);
  return [`seed ${seed} breaks`, ...broken, `trace (STAGHORN_SEED=${seed} STAGHORN_RUNS=1):`, ...trace].join(
    '\n',
  );
}
