export { describeFailure, explore, type Exploration } from './explore.ts';
export type { Rule } from './invariants.ts';
export { runScenario, type ScenarioResult } from './scenario.ts';
