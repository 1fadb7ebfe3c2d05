import { constants } from 'node:fs';
import { copyFile, open, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { StaghornError } from '../../errors/index.ts';
import type { StoredDisk, StoredImage } from '../../store/stored-disks.ts';
import type { QemuProcess } from '../qemu-process.ts';
import { imageName, partialSuffix, type DiskDirectory } from './disk-directory.ts';
import { readIdentity } from './image-identity.ts';
import type { LiveDisk, LiveImage } from './live-disk.ts';
import { readOpenFiles } from './open-files.ts';

/** Describes the images below the overlays, and sees to it that they last. `directory` is null if none is written. */
export async function storeDisks(
  disks: readonly LiveDisk[],
  process: QemuProcess,
  directory: DiskDirectory | null,
  signal: AbortSignal,
): Promise<StoredDisk[]> {
  const stored: StoredDisk[] = [];
  for (const { kind, name, readOnly, virtualBytes, chain } of disks) {
    const images: StoredImage[] = [];
    for (const image of chain) {
      signal.throwIfAborted();
      images.push(await storeImage(image, process, directory));
    }
    stored.push({ kind, name, readOnly, virtualBytes, chain: images });
  }
  return stored;
}

async function storeImage(
  image: LiveImage,
  process: QemuProcess,
  directory: DiskDirectory | null,
): Promise<StoredImage> {
  const path = image.file.deleted ? await copyDeleted(image, process, directory) : image.path;
  await directory?.freeze(path);
  const { format, unlinked } = image;
  return { path, format, unlinked, ...(await readIdentity(path)) };
}

/**
 * With `-snapshot` QEMU writes to a file that it has deleted, and that ends with it: it is copied. The copy's name
 * follows from the file, so that later snapshots of the same QEMU find it.
 */
async function copyDeleted(
  image: LiveImage,
  process: QemuProcess,
  directory: DiskDirectory | null,
): Promise<string> {
  const found = (await readOpenFiles(process.pid)).find(({ identity }) => identity === image.file.identity);
  if (found === undefined || directory === null)
    throw new StaghornError('vm-failed', `VM ${process.name}: ${image.path} is not open any more`);
  const source = `/proc/${process.pid}/fd/${found.fd}`;
  const { ino } = await stat(source, { bigint: true });
  const unique = ino.toString(16).padStart(12, '0').slice(-12);
  const path = join(directory.path, imageName(process.name, process, unique));
  if ((await stat(path).catch(() => null)) !== null) return path;
  const partial = `${path}${partialSuffix}`;
  try {
    await copyFile(source, partial, constants.COPYFILE_FICLONE);
    await syncFile(partial);
    await rename(partial, path);
  } finally {
    await rm(partial, { force: true });
  }
  return path;
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    await file.chmod(0o600);
    await file.sync();
  } finally {
    await file.close();
  }
}
