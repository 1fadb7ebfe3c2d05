import { StaghornError } from '../../errors/index.ts';
import type { PruneInput, PruneResult } from '../../protocol/prune.ts';
import type { Snapshot, SnapshotEdit } from '../../protocol/resources.ts';
import type { Catalog, StoredSnapshot } from '../catalog/catalog.ts';
import type { Experiments } from '../experiments.ts';
import type { OperationContext, Operations } from '../operations.ts';
import { selectForPruning } from './prune.ts';

const removeTimeoutMs = 30 * 60_000;

export interface CareTools {
  readonly experiments: Experiments;
  readonly operations: Operations;
  readonly catalog: Catalog;
}

/**
 * What must not be while snapshots of an experiment are removed: a snapshot under way may be storing only what its
 * parent has not, and a restore or a fork reads.
 * @throws StaghornError 'conflict'
 */
export function requireRemovable(
  { experiments, operations }: CareTools,
  { id, experiment, state }: Snapshot,
): void {
  if (state === 'storing') throw new StaghornError('conflict', `snapshot ${id} is being taken; cancel that`);
  experiments.requireNo(experiment, 'restoring');
  experiments.requireNo(experiment, 'snapshotting');
  operations.requireUnread(id);
}

/**
 * Removes a snapshot on all hosts, and then from the catalog: what is interrupted can be done again. From the first
 * host on it counts as failed, so that nothing that begins meanwhile takes it for its parent.
 */
export async function removeSnapshot(
  tools: CareTools,
  snapshot: Snapshot,
  signal: AbortSignal,
): Promise<void> {
  const { experiments, catalog } = tools;
  const { id, experiment } = snapshot;
  const hosts = await experiments.connect(experiment);
  const stored = catalog.findSnapshot(id);
  if (stored === null) return;
  requireRemovable(tools, stored.snapshot);
  catalog.putSnapshot({ ...stored, snapshot: { ...stored.snapshot, state: 'failed' } });
  await Promise.all(
    hosts.map(({ link }) => link.call('removeSnapshot', { snapshot: id }, removeTimeoutMs, signal)),
  );
  catalog.removeSnapshot(id);
}

/** @throws StaghornError 'conflict' if another snapshot of the experiment has the name */
export function editSnapshot(catalog: Catalog, stored: StoredSnapshot, edit: SnapshotEdit): Snapshot {
  const { snapshot, manifests } = stored;
  const { name = snapshot.name, description = snapshot.description, labels = {} } = edit;
  const other = name === null ? null : catalog.findSnapshotByName(snapshot.experiment, name);
  if (other !== null && other.snapshot.id !== snapshot.id)
    throw new StaghornError(
      'conflict',
      `experiment ${snapshot.experiment} has a snapshot named ${name} already`,
    );
  const changed = Object.entries({ ...snapshot.labels, ...labels }).filter(
    (entry): entry is [string, string] => entry[1] !== null,
  );
  const edited = { ...snapshot, name, description, labels: Object.fromEntries(changed) };
  catalog.putSnapshot({ snapshot: edited, manifests });
  return edited;
}

/** Removes the snapshots of an experiment that a policy does not keep, the oldest first. */
export async function pruneSnapshots(
  tools: CareTools,
  experiment: string,
  { dryRun, ...policy }: PruneInput,
  { signal, report }: OperationContext,
): Promise<PruneResult> {
  const all = tools.catalog.listSnapshots().map(({ snapshot }) => snapshot);
  const own = all.filter((snapshot) => snapshot.experiment === experiment);
  const { removed, kept } = selectForPruning(own, policy);
  const oldestFirst = removed.toReversed();
  for (const [index, snapshot] of dryRun ? [] : oldestFirst.entries()) {
    signal.throwIfAborted();
    report({ step: 'remove', message: `${snapshot.id} (${index + 1} of ${removed.length})` });
    await removeSnapshot(tools, snapshot, signal);
  }
  return {
    removed: oldestFirst.map(({ id }) => id),
    kept: kept.map(({ snapshot, reasons }) => ({ snapshot: snapshot.id, reasons })),
  };
}
