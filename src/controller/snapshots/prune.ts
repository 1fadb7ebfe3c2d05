import type { PruneInput } from '../../protocol/prune.ts';
import type { Snapshot } from '../../protocol/resources.ts';

/** The label of snapshots that are not pruned. */
export const keepLabel = 'keep';

export interface PruneSelection {
  readonly removed: Snapshot[];
  readonly kept: { readonly snapshot: Snapshot; readonly reasons: string[] }[];
}

type Policy = Omit<PruneInput, 'dryRun'>;
type Candidate = Pick<Snapshot, 'id' | 'createdAt' | 'state' | 'name' | 'labels'>;

const dayMs = 24 * 3600 * 1000;

/** Which snapshots stay and why. One that is not sealed is left alone. Pure; the order of the input does not matter. */
export function selectForPruning(all: readonly Snapshot[], policy: Policy): PruneSelection {
  const newestFirst = [...all].sort(
    (a, b) => b.createdAt.localeCompare(a.createdAt) || b.id.localeCompare(a.id),
  );
  const sealed = newestFirst.filter(({ state }) => state === 'sealed');
  const rules = [
    { reason: 'last', ids: firstOfEach(sealed, policy.keepLast, ({ id }) => id) },
    {
      reason: 'hourly',
      ids: firstOfEach(sealed, policy.keepHourly, ({ createdAt }) => createdAt.slice(0, 13)),
    },
    {
      reason: 'daily',
      ids: firstOfEach(sealed, policy.keepDaily, ({ createdAt }) => createdAt.slice(0, 10)),
    },
    { reason: 'weekly', ids: firstOfEach(sealed, policy.keepWeekly, weekOf) },
  ];
  const judged = newestFirst.map((snapshot) => ({
    snapshot,
    reasons: [
      ...rules.filter(({ ids }) => ids.has(snapshot.id)).map(({ reason }) => reason),
      ...exemptions(snapshot, policy),
    ],
  }));
  return {
    removed: judged.filter(({ reasons }) => reasons.length === 0).map(({ snapshot }) => snapshot),
    kept: judged.filter(({ reasons }) => reasons.length > 0),
  };
}

function exemptions({ state, name, labels }: Candidate, { includeKept }: Policy): string[] {
  if (state !== 'sealed') return [state];
  if (includeKept) return [];
  return [
    ...(name === null ? [] : ['named']),
    ...(Object.hasOwn(labels, keepLabel) ? ['labelled keep'] : []),
  ];
}

/** The first one of each of the first `count` groups that occur. */
function firstOfEach(
  sorted: readonly Candidate[],
  count: number,
  groupOf: (one: Candidate) => string,
): ReadonlySet<string> {
  const first = new Map<string, string>();
  for (const one of sorted) {
    const group = groupOf(one);
    if (!first.has(group) && first.size < count) first.set(group, one.id);
  }
  return new Set(first.values());
}

/** Monday of its week, UTC. */
function weekOf({ createdAt }: Candidate): string {
  const at = new Date(createdAt);
  const sinceMonday = (at.getUTCDay() + 6) % 7;
  return new Date(at.getTime() - sinceMonday * dayMs).toISOString().slice(0, 10);
}
