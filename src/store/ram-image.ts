import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { asStaghornError, StaghornError } from '../errors/index.ts';
import { rebuildRam, verifyRam, type CheckedRam } from '../native/ram-check.ts';
import { parseChunkChecksums } from './ram-checksums.ts';
import type { StoredRam } from './manifest.ts';

/** How files of other snapshots are found (SnapshotStore). */
export interface LayerFiles {
  fileOf(snapshot: string, file: string, readerDirectory?: string): Promise<string>;
}

/**
 * The image of RAM: a file that can be mapped privately. RAM stored in full is one. Layered RAM is put together when
 * it is first asked for, below the part's own directory, so that it goes with it; all restores and forks share it, and
 * with it the page cache. It is not synced, so what an earlier boot left does not count: the boot is in its path.
 */
export async function ramFileOf(
  store: LayerFiles,
  directory: string,
  ram: StoredRam,
  signal: AbortSignal,
): Promise<string> {
  if (ram.form === 'full') return join(directory, ram.file);
  const path = await rebuiltPath(directory, ram);
  for (;;) {
    const under = building.get(path);
    if (under === undefined) break;
    // Its caller may have given up, which is no reason for us to.
    await under.catch(() => undefined);
    signal.throwIfAborted();
  }
  if (await isComplete(path, ram)) return path;
  const build = rebuild(store, directory, ram, { path, signal });
  building.set(path, build);
  try {
    await build;
  } finally {
    building.delete(path);
  }
  return path;
}

/**
 * Recomputes the checksums of an image; one that was put together and has changed since is put together again.
 * @returns null, or in words what is wrong
 */
export async function findImageDamage(
  store: LayerFiles,
  directory: string,
  ram: StoredRam,
  signal: AbortSignal,
): Promise<string | null> {
  const isMade = ram.form === 'layered' && !(await isComplete(await rebuiltPath(directory, ram), ram));
  try {
    const path = await ramFileOf(store, directory, ram, signal);
    if (isMade) return null; // checked while it was made
    const damage = damageIn(ram, await verifyRam({ file: path, ...checksOf(ram), signal }));
    if (damage === null || ram.form === 'full') return damage;
    await rm(path, { force: true });
    await ramFileOf(store, directory, ram, signal);
    return null;
  } catch (error) {
    if (error instanceof StaghornError && error.code === 'snapshot-damaged') return error.message;
    throw error;
  }
}

/** Reads all that RAM is stored in, wherever it lies, and makes nothing. @returns null, or what is wrong */
export async function findStoredDamage(
  store: LayerFiles,
  directory: string,
  ram: StoredRam,
  signal: AbortSignal,
): Promise<string | null> {
  if (ram.form === 'full') {
    return damageIn(ram, await verifyRam({ file: join(directory, ram.file), ...checksOf(ram), signal }));
  }
  return damageIn(ram, await readLayers(store, directory, ram, { file: null, signal }));
}

/** Removes images that an earlier boot made. */
export async function removeStaleImages(directory: string): Promise<void> {
  const current = await rebuiltName();
  const names = await readdir(directory).catch(() => []);
  for (const name of names.filter((one) => one.startsWith(rebuiltPrefix) && one !== current)) {
    await rm(join(directory, name), { recursive: true, force: true });
  }
}

const rebuiltPrefix = 'rebuilt.';
const building = new Map<string, Promise<void>>();

async function rebuiltName(): Promise<string> {
  return `${rebuiltPrefix}${(await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()}`;
}

async function rebuiltPath(directory: string, { file }: Pick<StoredRam, 'file'>): Promise<string> {
  return join(directory, await rebuiltName(), file);
}

/** A file appears there only when it is whole. */
async function isComplete(path: string, { bytes }: StoredRam): Promise<boolean> {
  return stat(path).then(
    ({ size }) => size === bytes,
    () => false,
  );
}

async function rebuild(
  store: LayerFiles,
  directory: string,
  ram: StoredRam,
  { path, signal }: { path: string; signal: AbortSignal },
): Promise<void> {
  await removeStaleImages(directory);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const result = await readLayers(store, directory, ram, { file: path, signal }).catch((error: unknown) => {
    throw asStaghornError(error, 'internal', `putting ${ram.file} together: `);
  });
  const damage = damageIn(ram, result);
  if (damage !== null) throw new StaghornError('snapshot-damaged', damage);
}

async function readLayers(
  store: LayerFiles,
  directory: string,
  ram: StoredRam,
  { file, signal }: { file: string | null; signal: AbortSignal },
): Promise<CheckedRam> {
  if (ram.places === null) throw new StaghornError('snapshot-damaged', `${ram.file} has no places`);
  const layers: (string | null)[] = [];
  for (const layer of ram.layers) {
    while (layers.length < layer.number) layers.push(null);
    layers[layer.number - 1] =
      layer.snapshot === null
        ? join(directory, layer.file)
        : await store.fileOf(layer.snapshot, layer.file, directory);
  }
  const placesFile = join(directory, ram.places.file);
  return rebuildRam({ ...checksOf(ram), placesFile, layers, file, signal });
}

const checksOf = (ram: StoredRam) => ({ length: ram.bytes, checksums: parseChunkChecksums(ram) });

function damageIn(ram: StoredRam, { ok, firstBadChunk }: CheckedRam): string | null {
  if (ok) return null;
  const at = firstBadChunk === null ? '' : `, first at byte ${firstBadChunk * ram.chunkBytes}`;
  return `${ram.file} does not have the checksums that were sealed${at}`;
}
