import { StaghornError } from '../../errors/index.ts';
import { forkVmName, type ForkInput, type ForkOrigin } from '../../protocol/fork.ts';
import { resourceName } from '../../protocol/names.ts';
import type { Experiment, HostSpec, Snapshot } from '../../protocol/resources.ts';
import type { AgentResult } from '../../protocol/rpc.ts';
import type { ExperimentDefinition } from '../catalog/catalog.ts';

/** A fork that is to be made: an experiment, and where it is put. */
export interface PlannedFork {
  readonly definition: ExperimentDefinition & { readonly fork: ForkOrigin };
  /** By host, the names that its VMs have in the snapshot and in the fork. */
  readonly vms: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

export interface ForkSurroundings {
  readonly source: Experiment;
  readonly snapshot: Snapshot;
  /** What each host of the snapshot said. */
  readonly hosts: readonly AgentResult<'forkCheck'>[];
  /** Every experiment that is registered. */
  readonly experiments: readonly Pick<Experiment, 'name' | 'fork'>[];
}

/**
 * Keys of forks' tunnels begin here: in the upper half of the 24 bits that VXLAN and Geneve have (RFC 7348, RFC 8926),
 * where people who count from 1 do not come.
 */
const firstKey = 0x80_0000;
const lastKey = 0xff_ffff;

/** Names, numbers and keys that nothing has, neither on a host of the snapshot nor in the catalog. */
export function planForks({ count, name }: ForkInput, around: ForkSurroundings): PlannedFork[] {
  const { source, snapshot, hosts, experiments } = around;
  const origins = experiments.flatMap(({ fork }) => fork ?? []);
  const numbers = unused(1, [...hosts.flatMap(({ forks }) => forks), ...origins.map(({ fork }) => fork)]);
  const ownKeys = origins.flatMap(({ tunnelKeys }) => Object.values(tunnelKeys));
  const keys = unused(firstKey, [...hosts.flatMap(({ usedKeys }) => usedKeys), ...ownKeys]);
  const stored = [...new Set(hosts.flatMap(({ tunnelKeys }) => tunnelKeys))];
  const names = freeNames(name ?? `${source.name}-fork`, new Set(experiments.map((known) => known.name)));
  return Array.from({ length: count }, () => {
    const tunnelKeys = Object.fromEntries(stored.map((key) => [key, nextKey(keys)]));
    const fork = { snapshot: snapshot.id, fork: numbers.next().value, tunnelKeys };
    const vms = vmsOf(snapshot, fork.fork);
    return { definition: define(source, names.next().value, { fork, vms }), vms };
  });
}

function define(
  source: Experiment,
  name: string,
  { fork, vms }: { fork: ForkOrigin; vms: PlannedFork['vms'] },
) {
  const { externalFrames, frameBufferBytes } = source;
  const parsed = resourceName.safeParse(name);
  if (!parsed.success) throw new StaghornError('invalid-input', `a fork cannot be called ${name}`);
  const hosts = source.hosts.flatMap((host): HostSpec[] => {
    // Nothing leads out of a fork.
    const { external: _, ...login } = host;
    const own = [...(vms.get(host.name)?.values() ?? [])];
    return own.length === 0 ? [] : [{ ...login, vms: own }];
  });
  return {
    name,
    description: `fork of ${fork.snapshot} of ${source.name}`,
    hosts,
    ...(externalFrames === undefined ? {} : { externalFrames }),
    ...(frameBufferBytes === undefined ? {} : { frameBufferBytes }),
    fork,
  };
}

function vmsOf({ vms }: Snapshot, fork: number): PlannedFork['vms'] {
  const byHost = new Map<string, Map<string, string>>();
  for (const { host, name } of vms) {
    const own = byHost.get(host) ?? new Map<string, string>();
    byHost.set(host, own.set(name, forkVmName(name, fork)));
  }
  return byHost;
}

/** Numbers from the first one on, without those that are used. It never ends. */
function* unused(first: number, used: readonly number[]): Generator<number, never> {
  const taken = new Set(used);
  for (let number = first; ; number++) if (!taken.has(number)) yield number;
}

function nextKey(keys: Iterator<number, never>): number {
  const { value } = keys.next();
  if (value <= lastKey) return value;
  throw new StaghornError('conflict', 'the hosts have no keys left for tunnels of forks');
}

function* freeNames(prefix: string, taken: ReadonlySet<string>): Generator<string, never> {
  for (let number = 1; ; number++) {
    const name = `${prefix}-${number}`;
    if (!taken.has(name)) yield name;
  }
}
