import { StaghornError } from '../../errors/index.ts';
import type { Snapshot } from '../../protocol/resources.ts';
import type { BarrierHost } from '../hosts/agent-barrier.ts';
import type { Experiments } from '../experiments.ts';
import type { OperationContext } from '../operations.ts';
import type { RestorePart, RestorePlan } from './restore-plan.ts';
import { copyPart } from '../transfers/transfer.ts';

const callTimeoutMs = 30_000;

/**
 * Brings the parts of hosts whose VMs go elsewhere to where they go. Two VMs of one address would disturb each other:
 * where they were, they must not run any more.
 * @throws StaghornError 'conflict', and what a copy throws; 'host-unreachable' only if a part has to come from there
 */
export async function moveParts(
  experiments: Experiments,
  { id, experiment, vms }: Snapshot,
  { parts }: RestorePlan,
  hosts: readonly BarrierHost[],
  { signal, report }: OperationContext,
): Promise<void> {
  const moved = parts.filter(({ from, to }) => from !== to);
  await Promise.all(
    moved.map(async (part) => {
      const { from, to, manifestSha256 } = part;
      const { link } = hosts.find(({ name }) => name === to)!;
      const identity = { snapshot: id, manifestSha256 };
      const { isHere } = await link.call('hasPart', identity, callTimeoutMs, signal);
      const source = await experiments
        .connect(experiment, new Set([from]))
        .then(([host]) => host)
        .catch((error: unknown) => {
          // A host that is gone runs nothing.
          if (isHere) return undefined;
          throw error;
        });
      if (source !== undefined) await requireEnded(source, part, vms, signal);
      if (isHere) return;
      if (source === undefined)
        throw new StaghornError('not-found', `the experiment has no host ${from}, which has the part`);
      await copyPart({ from: source.link, to: link, ...identity, report, signal });
    }),
  );
}

async function requireEnded(
  { link }: BarrierHost,
  { from, vms }: RestorePart,
  all: Snapshot['vms'],
  signal: AbortSignal,
): Promise<void> {
  const names = vms ?? all.filter(({ host }) => host === from).map(({ name }) => name);
  const found = await link.call('discover', { vms: null }, callTimeoutMs, signal);
  const running = found.vms.filter(({ name }) => names.includes(name)).map(({ name }) => name);
  if (running.length === 0) return;
  throw new StaghornError(
    'conflict',
    `VM ${running.join(', ')} runs on host ${from}, and is to be restored on another; end it there first`,
    { context: { host: from } },
  );
}
