import { access, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

import { parseManifest } from './manifest.ts';
import {
  keptName,
  manifestName,
  needsDirectory,
  parsePartName,
  receiverOf,
  removedSuffix,
  snapshotOfPartial,
  type PartName,
} from './part-names.ts';

/**
 * Deleting keeps what others need. Invariant: a part goes for good only when no sealed part names a snapshot whose
 * files it has; `needs` of a manifest names all of them, not only the nearest.
 */
export async function retire(root: string, snapshot: string): Promise<void> {
  const parts = await listParts(root);
  const own = parts.filter((part) => part.snapshot === snapshot && part.state !== 'kept');
  const needed = await neededBy(
    root,
    parts.filter((part) => part.snapshot !== snapshot),
  );
  for (const part of own) {
    const kept = join(root, keptName(snapshot));
    const stays = part.state === 'own' && !(await isThere(kept)) && (await isNeeded(root, part, needed));
    if (stays) await rename(join(root, part.name), kept);
    else await removeAtOnce(root, part.name);
  }
  await removeUnneeded(root);
}

/** Where a file of a snapshot lies, deleted or not, or beside a part that it came with; null if it is nowhere. */
export async function findNeeded(root: string, snapshot: string, file: string): Promise<string | null> {
  const beside = (await listParts(root)).map(({ name }) => join(name, needsDirectory, snapshot));
  for (const directory of [snapshot, keptName(snapshot), ...beside]) {
    const path = join(root, directory, file);
    if (await isThere(path)) return path;
  }
  return null;
}

/** @returns the names of what was removed */
export async function sweep(root: string, isLive: (name: string) => Promise<boolean>): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await namesIn(root)) {
    const temporary =
      name.endsWith(removedSuffix) || snapshotOfPartial(name) !== null || receiverOf(name) !== null;
    if (!temporary || (await isLive(name))) continue;
    await rm(join(root, name), { recursive: true, force: true });
    removed.push(name);
  }
  return [...removed, ...(await removeUnneeded(root))];
}

async function removeUnneeded(root: string): Promise<string[]> {
  const parts = await listParts(root);
  const needed = await neededBy(root, parts);
  const removed: string[] = [];
  for (const part of parts.filter(({ state }) => state === 'kept')) {
    if (await isNeeded(root, part, needed)) continue;
    await removeAtOnce(root, part.name);
    removed.push(part.name);
  }
  return removed;
}

/** Gone for every reader with one rename, however long the files take. */
async function removeAtOnce(root: string, name: string): Promise<void> {
  const doomed = join(root, `${name}${removedSuffix}`);
  await rm(doomed, { recursive: true, force: true });
  await rename(join(root, name), doomed);
  await rm(doomed, { recursive: true, force: true });
}

/** The snapshots that sealed parts read files of; 'all' if one cannot be asked. */
async function neededBy(root: string, parts: readonly PartName[]): Promise<ReadonlySet<string> | 'all'> {
  const needed = new Set<string>();
  for (const { name, state } of parts) {
    if (state === 'kept') continue;
    const path = join(root, name, manifestName);
    try {
      const { needs } = parseManifest(await readFile(path, 'utf8'), path);
      for (const snapshot of needs) needed.add(snapshot);
    } catch {
      return 'all';
    }
  }
  return needed;
}

async function isNeeded(root: string, part: PartName, needed: ReadonlySet<string> | 'all'): Promise<boolean> {
  if (needed === 'all') return true;
  const has = [part.snapshot, ...(await namesIn(join(root, part.name, needsDirectory)))];
  return has.some((snapshot) => needed.has(snapshot));
}

async function listParts(root: string): Promise<PartName[]> {
  return (await namesIn(root)).map(parsePartName).filter((part) => part !== null);
}

async function namesIn(directory: string): Promise<string[]> {
  return readdir(directory).catch(() => []);
}

export const isThere = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );
