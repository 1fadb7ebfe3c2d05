import type { Snapshot } from '../../protocol/resources.ts';
import { formatBytes } from '../units.ts';

/** Snapshots under those that they came from, in the order of time; what an experiment came from last has a star. */
export function snapshotTree(all: readonly Snapshot[], isPresent: (one: Snapshot) => boolean): string {
  const known = new Set(all.map(({ id }) => id));
  const children = new Map<string | null, Snapshot[]>();
  for (const one of all) {
    const parent = one.parent !== null && known.has(one.parent) ? one.parent : null;
    children.set(parent, [...(children.get(parent) ?? []), one]);
  }
  const lines: string[] = [];
  // A way down a long line of snapshots must not be as deep as it is long for the stack.
  const waiting = (children.get(null) ?? []).map((one) => ({ one, stem: '', branch: '' })).toReversed();
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { one, stem, branch } = next;
    lines.push(`${stem}${branch}${labelOf(one, isPresent(one))}`);
    const below = children.get(one.id) ?? [];
    // An only child follows in a straight line; only where ways part the tree grows to the right.
    const isFork = below.length > 1;
    const inner = branch === '' ? stem : `${stem}${branch.startsWith('├') ? '│  ' : '   '}`;
    waiting.push(
      ...below
        .map((child, index) => ({
          one: child,
          stem: inner,
          branch: isFork ? (index === below.length - 1 ? '└─ ' : '├─ ') : '',
        }))
        .toReversed(),
    );
  }
  return lines.map((line) => `${line}\n`).join('');
}

function labelOf({ id, experiment, name, labels, state, bytes }: Snapshot, isPresent: boolean): string {
  const words = [
    `${isPresent ? '*' : 'o'} ${id}`,
    experiment,
    ...(name === null ? [] : [`"${name}"`]),
    ...(state === 'sealed' ? [formatBytes(bytes)] : [state]),
    ...Object.entries(labels).map(([key, value]) => (value === '' ? key : `${key}=${JSON.stringify(value)}`)),
  ];
  return words.join('  ');
}
