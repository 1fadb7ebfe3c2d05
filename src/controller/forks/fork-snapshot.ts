import { asStaghornError, messageOf, StaghornError } from '../../errors/index.ts';
import type { ForkInput, ForkResult } from '../../protocol/fork.ts';
import type { BarrierHost } from '../hosts/agent-barrier.ts';
import { inParallel } from './bounded.ts';
import type { StoredSnapshot } from '../catalog/catalog.ts';
import type { Experiments } from '../experiments.ts';
import { planForks, type PlannedFork } from './fork-plan.ts';
import { ForkRun, type MadeFork } from './fork-run.ts';
import type { OperationContext } from '../operations.ts';
import type { StandingTools } from '../snapshots/pauses.ts';
import { takeForkAway } from './remove-fork.ts';

/** More at once share the processors among more QEMUs that start, and none is ready sooner. */
const loadedAtOnce = 3;
/** Each that waits for the others has a buffer for frames in kernel memory on each of its hosts. */
const forksTogether = 10;
const checkTimeoutMs = 60_000;

/**
 * Makes copies of a whole experiment, each an experiment of its own. All of them run afterwards, or stand and wait to
 * be resumed; or none is left.
 * @throws StaghornError of the first that failed; 'invalid-input' if more would stand than may
 */
export async function forkSnapshot(
  { experiments, pauses }: StandingTools,
  stored: StoredSnapshot,
  input: ForkInput,
  { signal, report }: OperationContext,
): Promise<ForkResult> {
  const startedAtNs = process.hrtime.bigint();
  if (input.paused && input.count > forksTogether) throw tooManyPaused(input.count);
  const { snapshot, manifests } = stored;
  report({ step: 'connect', message: 'connecting to the hosts' });
  const hosts = await experiments.connect(snapshot.experiment, new Set(snapshot.vms.map(({ host }) => host)));
  const checks = await Promise.all(
    hosts.map(({ name, link }) => {
      const params = { snapshot: snapshot.id, manifestSha256: manifests[name] ?? '' };
      return link.call('forkCheck', params, checkTimeoutMs, signal);
    }),
  );
  const source = experiments.get(snapshot.experiment);
  const around = { source, snapshot, hosts: checks, experiments: experiments.list() };
  // Planned and registered in one go: two requests at once get different numbers.
  const forks = planForks(input, around);
  const registered = register(experiments, forks);
  let standing = false;
  const stay = (run: ForkRun, place: number) => {
    const { name, end } = registered[place]!;
    standing = true;
    const made = run.stay(pauses, end);
    experiments.become(name, 'paused');
    return made;
  };
  try {
    const made = await makeAll(forks, { stored, hosts, input, startedAtNs, signal, report, stay });
    const warnings = checks.flatMap((check, place) =>
      check.warnings.map((text) => `host ${hosts[place]!.name}: ${text}`),
    );
    const durationMs = Math.max(...made.map((fork) => fork.durationMs));
    return { snapshot: snapshot.id, durationMs, forks: made, warnings };
  } catch (error) {
    throw await afterRemoval(experiments, { registered, hosts, error });
  } finally {
    if (!standing) for (const { end } of registered) end();
  }
}

function tooManyPaused(count: number): StaghornError {
  return new StaghornError(
    'invalid-input',
    `${count} forks cannot be left paused: at most ${forksTogether} a request, for each keeps a buffer for frames in kernel memory`,
  );
}

/** An experiment that is busy with becoming a fork, until `end`. */
interface RegisteredFork {
  readonly name: string;
  readonly end: () => void;
}

function register(experiments: Experiments, forks: readonly PlannedFork[]): RegisteredFork[] {
  return forks.map(({ definition }) => {
    const { name } = experiments.add(definition);
    return { name, end: experiments.begin(name, 'restoring') };
  });
}

interface Making extends OperationContext {
  readonly stored: StoredSnapshot;
  readonly hosts: readonly BarrierHost[];
  readonly input: ForkInput;
  readonly startedAtNs: bigint;
  /** Leaves one standing that is loaded, by its place in the request. */
  readonly stay: (run: ForkRun, place: number) => MadeFork;
}

async function makeAll(forks: readonly PlannedFork[], making: Making): Promise<MadeFork[]> {
  const made: MadeFork[] = [];
  for (let begin = 0; begin < forks.length; begin += forksTogether) {
    const group = forks.slice(begin, begin + forksTogether);
    making.report({ step: 'load', message: `loading forks ${begin + 1} to ${begin + group.length}` });
    // One file of RAM serves all: it is checked once.
    made.push(...(await makeGroup(group, { ...making, verify: making.input.verify && begin === 0 })));
    const done = making.input.paused ? 'stand' : 'run';
    making.report({ step: 'fork', message: `${made.length} of ${forks.length} forks ${done}` });
  }
  return made;
}

/** Loads all, and only then lets them go: guests that run would take processors from QEMUs that start. */
async function makeGroup(
  forks: readonly PlannedFork[],
  making: Making & { readonly verify: boolean },
): Promise<MadeFork[]> {
  const stop = new AbortController();
  const signal = AbortSignal.any([making.signal, stop.signal]);
  const runs = forks.map((fork, place) => {
    const { paused } = making.input;
    return new ForkRun(fork, { ...making, signal, paused, verify: making.verify && place === 0 });
  });
  try {
    await inParallel(runs, { limit: loadedAtOnce, stop }, (run) => run.load());
    if (making.input.paused) return runs.map(making.stay);
    for (const run of runs) run.release();
    return await Promise.all(runs.map((run) => run.complete()));
  } catch (error) {
    stop.abort(error);
    await Promise.allSettled(runs.map((run) => run.complete()));
    throw error;
  }
}

interface Failure {
  readonly registered: readonly RegisteredFork[];
  readonly hosts: readonly BarrierHost[];
  readonly error: unknown;
}

/** Takes all of them away. @returns the error, saying what is left if a host did not do it */
async function afterRemoval(
  experiments: Experiments,
  { registered, hosts, error }: Failure,
): Promise<unknown> {
  const removals = await Promise.allSettled(
    registered.map(({ name, end }) => takeForkAway(experiments, name, { hosts, end })),
  );
  const left = removals.flatMap((removal, place) =>
    removal.status === 'fulfilled' ? [] : [`${registered[place]!.name} (${messageOf(removal.reason)})`],
  );
  if (left.length === 0) return error;
  const { code, message, context } = asStaghornError(error);
  const text = `${message}; something is left of ${left.join(', ')}: remove it with --destroy`;
  return new StaghornError(code, text, { cause: error, context });
}
