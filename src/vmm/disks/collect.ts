import { open, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import { imagesNamedBy } from '../../store/sent-images.ts';
import { isRunning, thisProcess } from '../process-identity.ts';
import { findQemuProcesses } from '../qemu-process.ts';
import { DiskDirectory, isFrozen, parseImageName, partialSuffix } from './disk-directory.ts';
import { readOpenFiles } from './open-files.ts';
import { parseHeader } from './qcow2.ts';

/** Overlays are beside the snapshots, so that what is free for one is free for the other. */
export const disksOf = (store: SnapshotStore): DiskDirectory => new DiskDirectory(store.pathOf('disks'));

interface Image {
  readonly path: string;
  readonly vm: string;
  readonly frozen: boolean;
  /** Nothing was ever written to it. */
  readonly empty: boolean;
  /** Every path that its header names. */
  readonly below: readonly string[];
  /** Somebody may be about to use it. */
  readonly inTheMaking: boolean;
}

/**
 * Removes images of ours that nothing needs: layers that no snapshot names and no QEMU reads, overlays that were
 * never written to, and those that VMs of these names left (`replaced`), which went back to a snapshot. What a VM
 * that ended by itself has written since its last snapshot stays.
 * @returns what was removed
 */
export async function collectImages(
  directory: DiskDirectory,
  store: SnapshotStore,
  replaced: readonly string[] = [],
): Promise<string[]> {
  const images = await readImages(directory);
  if (images.length === 0) return [];
  // A manifest that cannot be read may name anything: then this throws, and all stays.
  const needed = new Set([...(await namedImages(store)), ...(await usedImages())]);
  const goes = ({ path, vm, frozen, empty, inTheMaking }: Image) =>
    !needed.has(path) && !inTheMaking && (frozen || empty || replaced.includes(vm));
  const byPath = new Map(images.map((image) => [image.path, image]));
  const keep = images.filter((image) => !goes(image));
  for (const image of keep) keepBelow(image, byPath, needed);
  const removed = images.filter(goes).map(({ path }) => path);
  for (const path of removed) await rm(path, { force: true });
  return removed;
}

function keepBelow({ below }: Image, byPath: ReadonlyMap<string, Image>, needed: Set<string>): void {
  for (const path of below) {
    const image = byPath.get(path);
    if (image === undefined || needed.has(path)) continue;
    needed.add(path);
    keepBelow(image, byPath, needed);
  }
}

async function namedImages(store: SnapshotStore): Promise<string[]> {
  return (await store.parts()).flatMap(({ manifest }) => imagesNamedBy(manifest).map(({ path }) => path));
}

async function usedImages(): Promise<string[]> {
  const files = await Promise.all((await findQemuProcesses()).map(({ pid }) => readOpenFiles(pid)));
  return files.flat().map(({ path }) => path);
}

async function readImages(directory: DiskDirectory): Promise<Image[]> {
  const names = await readdir(directory.path).catch(() => []);
  const images = await Promise.all(names.map((name) => readImage(name, directory)));
  return images.filter((image) => image !== null);
}

async function readImage(name: string, directory: DiskDirectory): Promise<Image | null> {
  const isPartial = name.endsWith(partialSuffix);
  const parsed = parseImageName(isPartial ? name.slice(0, -partialSuffix.length) : name);
  const path = join(directory.path, name);
  const mode = await stat(path).then(
    ({ mode: found }) => found,
    () => null,
  );
  if (parsed === null || mode === null) return null;
  const self = thisProcess();
  const byUs = parsed.maker.pid === self.pid && parsed.maker.startTicks === self.startTicks;
  const inTheMaking = directory.isHeld(path) || (!byUs && (await isRunning(parsed.maker)));
  const contents = isPartial ? { empty: true, below: [] } : await readContents(path);
  return { path, vm: parsed.vm, frozen: isFrozen(mode), inTheMaking, ...contents };
}

const headBytes = 64 * 1024;

async function readContents(path: string): Promise<{ empty: boolean; below: string[] }> {
  const file = await open(path, 'r');
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0);
    const header = parseHeader(buffer.subarray(0, bytesRead));
    // Killed while it was made: nobody has it yet.
    if (header === null) return { empty: true, below: [] };
    const { l1, backing } = header;
    const table = await file.read(Buffer.alloc(l1.bytes), 0, l1.bytes, l1.offset);
    return { empty: table.buffer.every((byte) => byte === 0), below: pathsIn(backing) };
  } finally {
    await file.close();
  }
}

interface NodeOptions {
  readonly file?: { readonly filename?: string };
  readonly backing?: NodeOptions;
}

function pathsIn(backing: string | null): string[] {
  if (backing === null) return [];
  if (!backing.startsWith('json:')) return [backing];
  const paths: string[] = [];
  let node = JSON.parse(backing.slice('json:'.length)) as NodeOptions | undefined;
  for (; node !== undefined; node = node.backing)
    if (node.file?.filename !== undefined) paths.push(node.file.filename);
  return paths;
}
