import { snapshotId } from '../protocol/names.ts';

/**
 * What the directories of a store are called:
 *   ID            the host's own part of a snapshot, sealed
 *   ID.CHECKSUM   a part of it that was copied from another host, by the beginning of its manifest's SHA-256
 *   ID.kept       deleted, and still there because others read files of it
 *   ID.partial    being written by a barrier
 *   *.receiving-PID-TICKS   being received by that process
 *   *.removed     being removed
 * In a part's directory all files lie side by side, but for needs/ID/FILE: files of other snapshots that came with it.
 */
export const manifestName = 'manifest.json';
export const needsDirectory = 'needs';
export const removedSuffix = '.removed';
const keptSuffix = '.kept';
const partialSuffix = '.partial';
const checksumLength = 12;

export type PartState = 'own' | 'copy' | 'kept';

export interface PartName {
  readonly name: string;
  readonly snapshot: string;
  readonly state: PartState;
}

export const partialName = (snapshot: string) => `${snapshot}${partialSuffix}`;
export const keptName = (snapshot: string) => `${snapshot}${keptSuffix}`;
export const copyName = (snapshot: string, manifestSha256: string) =>
  `${snapshot}.${manifestSha256.slice(0, checksumLength)}`;
export const receivingName = (part: string, owner: string) => `${part}.receiving-${owner}`;

/** Null if it is not the directory of a whole part. */
export function parsePartName(name: string): PartName | null {
  const [, snapshot = '', suffix] = /^([^.]*)(?:\.(kept|[0-9a-f]{12}))?$/.exec(name) ?? [];
  if (!snapshotId.safeParse(snapshot).success) return null;
  return { name, snapshot, state: suffix === undefined ? 'own' : suffix === 'kept' ? 'kept' : 'copy' };
}

/** The snapshot of a directory that a barrier is writing; null if it is none. */
export function snapshotOfPartial(name: string): string | null {
  const snapshot = name.endsWith(partialSuffix) ? name.slice(0, -partialSuffix.length) : '';
  return snapshotId.safeParse(snapshot).success ? snapshot : null;
}

/** Who receives into a directory, as `receivingName` was told; null if it is none of these. */
export function receiverOf(name: string): string | null {
  return /\.receiving-(\d+-\d+)$/.exec(name)?.[1] ?? null;
}
