import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Verdict } from '../../../src/bench/traffic/index.ts';
import type { Case, Step } from './case.ts';
import { Experiment } from './experiment.ts';
import type { Snapshot } from './experiment.ts';
import type { Cleanup } from './cleanup.ts';
import { CaseNetwork, loadsOf } from './network.ts';

export interface Outcome {
  readonly verdict: Verdict;
  /** Of the rates that the case asked for: less, where the network itself lost frames. */
  readonly rateShare: number;
  /** Frames that were in flight at the cuts. */
  readonly framesInFlight: number;
  readonly snapshots: number;
  readonly restores: number;
}

const leastRateShare = 1 / 8;
const controlMs = 400;

type Attempt = Outcome & { readonly lostByTheNetwork: number };

/** A frame that is dropped on its way into a switch may be missing at each of its recipients; no more than that. */
function isExcused({ verdict: { lost }, lostByTheNetwork }: Attempt, { flows }: Case): boolean {
  const recipients = [...flows.values()].flat().map((flow) => flow.recipients.length);
  return lost > 0 && lost <= lostByTheNetwork * Math.max(...recipients);
}

/**
 * Plays a case to its end. Where the network drops frames of its own accord (the sockets of a switch that gets too
 * little processor time), nothing can be said of what is lost: the case is played again, with lower rates.
 */
export async function playCase(drawn: Case, program: string, cleanup: Cleanup): Promise<Outcome> {
  for (let rateShare = 1; ; rateShare /= 2) {
    const attempt = await playOnce(drawn, program, rateShare, cleanup);
    await cleanup.run();
    if (!isExcused(attempt, drawn) || rateShare <= leastRateShare) return attempt;
    const text = `${attempt.lostByTheNetwork} frames were dropped by the network itself`;
    process.stdout.write(`seed ${drawn.seed}: ${text} at ${rateShare} of the rates; again, with half\n`);
  }
}

async function playOnce(drawn: Case, program: string, rateShare: number, cleanup: Cleanup): Promise<Attempt> {
  const directory = await mkdtemp(join(tmpdir(), 'staghorn-property-'));
  cleanup.add(() => rm(directory, { recursive: true, force: true }));
  const { topology, flows } = drawn;
  const network = new CaseNetwork(topology);
  cleanup.add(() => network.destroy());
  await network.build(loadsOf(flows), directory);
  const experiment = new Experiment({ drawn, network, directory, program, rateShare });
  cleanup.add(() => experiment.end());
  await experiment.start();
  const control = await playControl(experiment);
  if (control.problems.length > 0) {
    const nothing = { framesInFlight: 0, snapshots: 0, restores: 0 };
    return { verdict: control, rateShare, ...nothing, lostByTheNetwork: control.lost };
  }
  const before = await experiment.drops();
  const played = await playSteps(experiment, drawn.steps);
  await experiment.mute();
  const verdict = await experiment.verdict();
  return { verdict, rateShare, ...played, lostByTheNetwork: (await experiment.drops()) - before };
}

/** Without any snapshot the network must lose nothing. */
async function playControl(experiment: Experiment): Promise<Verdict> {
  await sleep(controlMs);
  await experiment.mute();
  return experiment.verdict();
}

async function playSteps(experiment: Experiment, steps: readonly Step[]) {
  const snapshots: Snapshot[] = [];
  let restores = 0;
  await experiment.unmute();
  for (const { kind, afterMs, pauseMs } of steps) {
    await sleep(afterMs);
    const snapshot = kind === 'go back' ? earlier(snapshots) : await experiment.snapshot();
    if (!snapshots.includes(snapshot)) snapshots.push(snapshot);
    await sleep(pauseMs);
    if (kind === 'go on') {
      await experiment.goOn(snapshot);
    } else {
      restores++;
      await experiment.restore(snapshot);
    }
  }
  const framesInFlight = snapshots.reduce((sum, { frames }) => sum + frames, 0);
  return { framesInFlight, snapshots: snapshots.length, restores };
}

function earlier(snapshots: readonly Snapshot[]): Snapshot {
  const found = snapshots[Math.floor(snapshots.length / 2)];
  if (found === undefined) throw new Error('there is no earlier snapshot');
  return found;
}
