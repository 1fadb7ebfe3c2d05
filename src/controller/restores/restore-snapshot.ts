import { asStaghornError, StaghornError } from '../../errors/index.ts';
import type { RestoreInput, RestoreResult } from '../../protocol/resources.ts';
import type { BarrierHost } from '../hosts/agent-barrier.ts';
import { dryRestoreProcedure, restoreProcedure } from '../barrier/procedures.ts';
import type { StoredSnapshot } from '../catalog/catalog.ts';
import type { OperationContext } from '../operations.ts';
import type { StandingTools } from '../snapshots/pauses.ts';
import { RestoreBarrier } from './restore-barrier.ts';
import { moveParts } from './moved-parts.ts';
import { planRestore, type RestorePlan } from './restore-plan.ts';
import { describeRestore } from './restore-report.ts';

/**
 * Brings a snapshot back: from the request to the last VM running, and until every frame is delivered; or to where
 * time stands still, or only as far as the check.
 * @param onEnded when nothing is done with the experiment any more: after this, or when its pause ends
 * @throws StaghornError saying in which condition the experiment was left
 */
export async function restoreSnapshot(
  { experiments, pauses }: StandingTools,
  stored: StoredSnapshot,
  input: RestoreInput,
  context: OperationContext,
  onEnded: () => void,
): Promise<RestoreResult> {
  const startedAtNs = process.hrtime.bigint();
  let barrier: RestoreBarrier | undefined;
  let held = false;
  try {
    const { snapshot } = stored;
    const { experiment } = snapshot;
    const known = experiments.get(experiment).hosts.map(({ name }) => name);
    const plan = planRestore(stored, input, known);
    context.report({ step: 'connect', message: 'connecting to the hosts' });
    const places = new Set(plan.parts.map(({ to }) => to));
    const hosts = await experiments.connect(experiment, places, places.size === 1 ? 'known' : 'measured');
    await moveParts(experiments, snapshot, plan, hosts, context);
    barrier = makeBarrier(stored, plan, hosts, input, context);
    // A host alone watches every place in which a frame can wait.
    const procedure = restoreProcedure({ marked: input.replace && hosts.length > 1, paused: input.paused });
    if (input.dryRun) {
      await checkOnly(barrier, context.signal);
    } else if (input.paused) {
      held = true;
      const made = barrier;
      const explain = (error: unknown) => withOutcome(asStaghornError(error), made);
      const keep = { barrier, procedure, signal: context.signal, explain };
      await pauses.hold(experiment, keep, onEnded);
      experiments.become(experiment, 'paused');
    } else {
      await barrier.carryThrough(procedure, context.signal);
    }
    return describeRestore(stored, plan, input, barrier, startedAtNs);
  } catch (error) {
    throw held ? error : withOutcome(asStaghornError(error), barrier);
  } finally {
    if (!held) onEnded();
  }
}

function makeBarrier(
  { snapshot }: StoredSnapshot,
  { parts, warnings }: RestorePlan,
  hosts: readonly BarrierHost[],
  input: RestoreInput,
  { report }: OperationContext,
): RestoreBarrier {
  return new RestoreBarrier({
    snapshot: snapshot.id,
    stoppedAtMs: Date.parse(snapshot.stoppedAt ?? snapshot.createdAt),
    parts: new Map(parts.map((part) => [part.to, part])),
    whole: warnings.length === 0,
    input,
    hosts,
    report,
  });
}

/** Every host has checked; then the barrier is given up, which leaves them as they are. */
async function checkOnly(barrier: RestoreBarrier, signal: AbortSignal): Promise<void> {
  await barrier.carryThrough(dryRestoreProcedure, signal);
  await Promise.all([...barrier.hosts.keys()].map((host) => barrier.abort(host, 'it was a dry run')));
}

function withOutcome(error: StaghornError, barrier: RestoreBarrier | undefined): StaghornError {
  const { code, message, context } = error;
  return new StaghornError(code, `${message} (${outcomeOf(barrier)})`, { cause: error, context });
}

/** In which condition a failed restore has left the experiment. */
function outcomeOf(barrier: RestoreBarrier | undefined): string {
  if (barrier === undefined || !barrier.touched)
    return 'nothing was touched: the experiment is as it was before';
  const outcomes = [...barrier.hosts.keys()].map((host) => ({
    host,
    outcome:
      barrier.outcomes.get(host) ??
      'it did not say how it was left; VMs that were started there end with their lease',
  }));
  const [first] = outcomes;
  if (outcomes.every(({ outcome }) => outcome === first?.outcome)) return first?.outcome ?? '';
  return outcomes.map(({ host, outcome }) => `host ${host}: ${outcome}`).join('; ');
}
