import { z } from 'zod';

/** A name that people choose: it becomes part of paths and URLs, so it is kept to what is safe in both. */
export const resourceName = z
  .string()
  .regex(
    /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/,
    'must be 1 to 63 letters, digits, ".", "_" or "-", and begin with a letter or digit',
  );

/** Snapshots sort by time: `20261122T151200Z-3f9ac1`. */
export const snapshotId = z.string().regex(/^\d{8}T\d{6}Z-[0-9a-f]{6}$/, 'is not a snapshot id');
export type SnapshotId = z.infer<typeof snapshotId>;

export function newSnapshotId(now: Date, random: string): SnapshotId {
  const stamp = now.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  return snapshotId.parse(`${stamp}-${random}`);
}
