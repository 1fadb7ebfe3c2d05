import { asStaghornError, messageOf, StaghornError } from '../errors/index.ts';
import type { ForkInput, ForkResult, RestoreInput } from '../protocol/resources.ts';
import type { BarrierHost } from './agent-barrier.ts';
import { restoreProcedure } from './barrier/procedures.ts';
import { inParallel } from './bounded.ts';
import type { StoredSnapshot } from './catalog.ts';
import type { Experiments } from './experiments.ts';
import { planForks, type PlannedFork } from './fork-plan.ts';
import type { OperationContext } from './operations.ts';
import { takeForkAway } from './remove-fork.ts';
import { RestoreBarrier } from './restore-barrier.ts';

/** More at once share the processors among more QEMUs that start, and none is ready sooner. */
const forksAtOnce = 3;
const checkTimeoutMs = 60_000;

type Made = ForkResult['forks'][number];

/**
 * Makes copies of a whole experiment, each an experiment of its own. All of them run afterwards, or none is left.
 * @throws StaghornError of the first that failed
 */
export async function forkSnapshot(
  experiments: Experiments,
  stored: StoredSnapshot,
  input: ForkInput,
  { signal, report }: OperationContext,
): Promise<ForkResult> {
  const startedAtNs = process.hrtime.bigint();
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
  try {
    const made = await makeAll(forks, { stored, hosts, input, startedAtNs, signal, report });
    const warnings = checks.flatMap((check, place) =>
      check.warnings.map((text) => `host ${hosts[place]!.name}: ${text}`),
    );
    const durationMs = Math.max(...made.map((fork) => fork.durationMs));
    return { snapshot: snapshot.id, durationMs, forks: made, warnings };
  } catch (error) {
    throw await afterRemoval(experiments, { registered, hosts, error });
  } finally {
    for (const { end } of registered) end();
  }
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
}

async function makeAll(forks: readonly PlannedFork[], making: Making): Promise<Made[]> {
  let ready = 0;
  const tell = () => {
    making.report({ step: 'fork', message: `${ready} of ${forks.length} forks run` });
    ready += 1;
  };
  tell();
  return inParallel(forks, { limit: forksAtOnce, signal: making.signal }, async (fork, place, signal) => {
    // One file of RAM serves all: it is checked once.
    const verify = making.input.verify && place === 0;
    const made = await makeOne(fork, verify, { ...making, signal });
    tell();
    return made;
  });
}

async function makeOne(fork: PlannedFork, verify: boolean, making: Making): Promise<Made> {
  const { definition, vms } = fork;
  const { snapshot, manifests } = making.stored;
  const { fork: number, tunnelKeys } = definition.fork;
  const barrier = new RestoreBarrier({
    snapshot: snapshot.id,
    manifests,
    stopOffsetsNs: stopOffsets(fork, making.stored),
    input: { ...plainRestore, verify },
    placement: { fork: number, tunnelKeys },
    hosts: making.hosts.map((host) => ({
      ...host,
      vms: [...(vms.get(host.name)?.values() ?? [])],
      externalPorts: [],
    })),
    report: () => undefined,
  });
  await barrier.carryThrough(restoreProcedure, making.signal);
  const resumedNs = [...barrier.resumes.values()].flatMap((resumes) => [...resumes.values()]);
  const lastNs = resumedNs.reduce((last, instant) => (instant > last ? instant : last), making.startedAtNs);
  const settled = [...barrier.settled];
  return {
    experiment: definition.name,
    durationMs: Number(lastNs - making.startedAtNs) / 1e6,
    vms: [...vms].flatMap(([host, names]) => [...names.values()].map((name) => ({ host, name }))),
    framesDelivered: settled.reduce((sum, [, { framesReplayed }]) => sum + framesReplayed, 0),
    warnings: settled.flatMap(([host, { warnings }]) => warnings.map((text) => `host ${host}: ${text}`)),
  };
}

const plainRestore: RestoreInput = {
  replace: false,
  verify: true,
  paused: false,
  clock: 'hidden',
  dryRun: false,
};

function stopOffsets({ vms }: PlannedFork, { snapshot }: StoredSnapshot): Map<string, Map<string, bigint>> {
  const byHost = new Map<string, Map<string, bigint>>();
  for (const { host, name, stopOffsetNs } of snapshot.vms) {
    const offsets = byHost.get(host) ?? new Map<string, bigint>();
    byHost.set(host, offsets.set(vms.get(host)!.get(name)!, BigInt(stopOffsetNs)));
  }
  return byHost;
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
