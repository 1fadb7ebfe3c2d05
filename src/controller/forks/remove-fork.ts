import { StaghornError } from '../../errors/index.ts';
import type { BarrierHost } from '../hosts/agent-barrier.ts';
import type { Experiments } from '../experiments.ts';
import type { StandingTools } from '../snapshots/pauses.ts';

const removeTimeoutMs = 60_000;

/**
 * Ends the VMs of a fork, takes its bridges, taps and files away on every host, and forgets it.
 * @throws StaghornError 'wrong-state' if it is none; 'conflict' while it is busy or has snapshots
 */
export async function destroyFork({ experiments, pauses }: StandingTools, name: string): Promise<void> {
  if (experiments.get(name).fork === undefined) {
    throw new StaghornError(
      'wrong-state',
      `experiment ${name} is not a fork: Staghorn did not make its VMs and ends none of them`,
    );
  }
  experiments.requireNoSnapshots(name);
  await pauses.giveUp(name, 'the experiment is removed');
  experiments.requireRemovable(name);
  const end = experiments.begin(name, 'restoring');
  try {
    await takeForkAway(experiments, name, { hosts: await experiments.connect(name), end });
  } finally {
    end();
  }
}

/** @param end of the activity that keeps others away from it */
export async function takeForkAway(
  experiments: Experiments,
  name: string,
  { hosts, end }: { hosts: readonly Pick<BarrierHost, 'link'>[]; end: () => void },
): Promise<void> {
  const { fork } = experiments.get(name).fork!;
  await Promise.all(hosts.map(({ link }) => link.call('forkRemove', { fork }, removeTimeoutMs)));
  end();
  experiments.remove(name);
}
