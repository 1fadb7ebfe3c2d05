import { describeFlow, drawFlows } from './flows.ts';
import type { DrawnFlow } from './flows.ts';
import { Random } from './random.ts';
import { describeTopology, drawDelaysMs, drawTopology } from './topology.ts';
import type { Topology } from './topology.ts';

/**
 * One cut in the life of a case. "go on": the frames are given back after the pause. "start again": it is saved,
 * every endpoint is killed and started from disk. "go back": the same, from an earlier snapshot, while traffic flows.
 */
export interface Step {
  readonly kind: 'go on' | 'start again' | 'go back';
  /** For how long traffic flows before it. */
  readonly afterMs: number;
  /** For how long everything stands still, once it is drained. */
  readonly pauseMs: number;
}

/** All that follows from a seed. */
export interface Case {
  readonly seed: number;
  readonly topology: Topology;
  /** By the name of the sender. */
  readonly flows: ReadonlyMap<string, readonly DrawnFlow[]>;
  readonly steps: readonly Step[];
}

function drawStep(random: Random, place: number): Step {
  const mayGoBack = place > 1;
  const kind = random.chance(0.5) ? 'go on' : random.chance(0.4) && mayGoBack ? 'go back' : 'start again';
  return { kind, afterMs: random.integer(5, 250), pauseMs: random.integer(0, 60) };
}

export function drawCase(seed: number): Case {
  const random = new Random(seed);
  const plan = drawTopology(random);
  const flows = drawFlows(random, plan);
  const steps = random.times(random.integer(4, 9), (place) => drawStep(random, place));
  const topology = { ...plan, delaysMs: drawDelaysMs(random, plan.hosts) };
  return { seed, topology, flows, steps };
}

export function describeCase({ seed, topology, flows, steps }: Case): string {
  return [
    `STAGHORN_SEED=${seed}`,
    ...describeTopology(topology),
    ...[...flows].flatMap(([from, own]) => own.map((flow) => describeFlow(from, flow))),
    ...steps.map(({ kind, afterMs, pauseMs }) => `  after ${afterMs} ms: ${kind}, pause ${pauseMs} ms`),
  ].join('\n');
}
