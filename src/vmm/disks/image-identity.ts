import { stat } from 'node:fs/promises';

import type { StoredImage } from '../../store/stored-disks.ts';

export type ImageIdentity = Pick<StoredImage, 'bytes' | 'mtimeNs' | 'inode'>;

export async function readIdentity(path: string): Promise<ImageIdentity> {
  const { size, mtimeNs, ino } = await stat(path, { bigint: true });
  return { bytes: Number(size), mtimeNs, inode: ino };
}

/** Null, or in words how an image is not what it was when the snapshot was taken. */
export async function findImageDamage(image: StoredImage): Promise<string | null> {
  const now = await readIdentity(image.path).catch(() => null);
  if (now === null) return `disk image ${image.path} is gone`;
  if (now.bytes !== image.bytes)
    return `disk image ${image.path} has ${now.bytes} bytes instead of ${image.bytes}`;
  if (now.inode !== image.inode) return `disk image ${image.path} was replaced by another file`;
  return now.mtimeNs === image.mtimeNs ? null : `disk image ${image.path} was written to after the snapshot`;
}
