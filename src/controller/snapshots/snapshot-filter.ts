import type { Snapshot } from '../../protocol/resources.ts';

/** What snapshots are looked for by; all of it must fit. */
export interface SnapshotFilter {
  readonly experiment?: string | undefined;
  /** `key=value`, or `key` for any value. */
  readonly label?: readonly string[] | undefined;
  /** May hold `*` for any characters and `?` for one. */
  readonly name?: string | undefined;
}

export function fits(snapshot: Snapshot, { experiment, label = [], name }: SnapshotFilter): boolean {
  if (experiment !== undefined && snapshot.experiment !== experiment) return false;
  if (name !== undefined && !(snapshot.name !== null && pattern(name).test(snapshot.name))) return false;
  return label.every((wanted) => hasLabel(snapshot, wanted));
}

function hasLabel({ labels }: Snapshot, wanted: string): boolean {
  const equals = wanted.indexOf('=');
  if (equals < 0) return Object.hasOwn(labels, wanted);
  const key = wanted.slice(0, equals);
  return Object.hasOwn(labels, key) && labels[key] === wanted.slice(equals + 1);
}

function pattern(glob: string): RegExp {
  const source = glob
    .replaceAll(/[.+^${}()|[\]\\]/g, String.raw`\$&`)
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  return new RegExp(`^${source}$`, 's');
}
