import { createHash } from 'node:crypto';
import { constants, createReadStream, readFileSync, statSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import { asStaghornError, messageOf, StaghornError } from '../errors/index.ts';
import { snapshotId } from '../protocol/names.ts';
import { filesNamedBy } from './manifest-files.ts';
import { formatManifest, parseManifest, type HostManifest, type StoredFile } from './manifest.ts';
import { findNeeded, isThere, retire, sweep } from './kept-snapshots.ts';
import { copyName, manifestName, needsDirectory, parsePartName, partialName } from './part-names.ts';
import { readPlacedImages, withPlacedImages } from './placed-images.ts';

/** A part of a snapshot as it lies in a store. */
export interface StoredPart {
  readonly manifest: HostManifest;
  readonly directory: string;
}

/**
 * Where an agent keeps its host's snapshots: one directory a snapshot, readable by root only. What names of
 * directories mean is told in part-names.ts. Each step is one rename: whoever is killed leaves nothing half-done.
 */
export class SnapshotStore {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
  }

  /** That in which a part has its directory. */
  static containing(partDirectory: string): SnapshotStore {
    return new SnapshotStore(dirname(partDirectory));
  }

  get root(): string {
    return this.#root;
  }

  pathOf(snapshot: string): string {
    return join(this.#root, snapshot);
  }

  /** Bytes that are free for root on the store's file system. */
  async freeBytes(): Promise<number> {
    await mkdir(this.#root, { recursive: true, mode: 0o700 });
    const { bfree, bsize } = await statfs(this.#root);
    return bfree * bsize;
  }

  /** Begins a snapshot: a directory that does not count until it is sealed. */
  async create(snapshot: string): Promise<PartialSnapshot> {
    const partial = join(this.#root, partialName(snapshot));
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true, mode: 0o700 });
    return new PartialSnapshot(partial, this.pathOf(snapshot));
  }

  /**
   * The manifest of a sealed snapshot, checked against the checksum that the controller keeps.
   * @throws StaghornError 'not-found', 'snapshot-damaged', 'snapshot-unfit'
   */
  async readManifest(snapshot: string, sha256: string | null): Promise<HostManifest> {
    return (await this.open(snapshot, sha256)).manifest;
  }

  /**
   * The host's own part of a snapshot, or one that was copied here from another host: that with the checksum.
   * @throws StaghornError as `readManifest`
   */
  async open(snapshot: string, sha256: string | null): Promise<StoredPart> {
    const own = this.pathOf(snapshot);
    const copy = sha256 === null ? own : join(this.#root, copyName(snapshot, sha256));
    const directory = (await isThere(join(copy, manifestName))) ? copy : own;
    return this.openAt(directory, sha256);
  }

  /** A part by its directory. @throws StaghornError as `readManifest` */
  async openAt(directory: string, sha256: string | null = null): Promise<StoredPart> {
    const path = join(directory, manifestName);
    const text = readManifestText(path);
    if (sha256 !== null && sha256Of(text) !== sha256) {
      throw new StaghornError('snapshot-damaged', `${path} does not have the checksum that was sealed`);
    }
    const manifest = parseManifest(text, path);
    return { manifest: withPlacedImages(manifest, await readPlacedImages(directory)), directory };
  }

  /**
   * Where a file of another snapshot is that a manifest `needs`: also if that snapshot was deleted since.
   * @param reader directory of the part that reads it
   * @throws StaghornError 'snapshot-damaged'
   */
  async fileOf(snapshot: string, file: string, reader?: string): Promise<string> {
    const beside = reader === undefined ? null : join(reader, needsDirectory, snapshot, file);
    if (beside !== null && (await isThere(beside))) return beside;
    const found = await findNeeded(this.#root, snapshot, file);
    if (found !== null) return found;
    throw new StaghornError('snapshot-damaged', `${file} of snapshot ${snapshot} is not here any more`);
  }

  /** The ids of everything that is sealed here. */
  async sealed(): Promise<string[]> {
    const names = await readdir(this.#root).catch(() => []);
    return names.filter((name) => snapshotId.safeParse(name).success);
  }

  /** Everything that is sealed here, copies from other hosts included. @throws StaghornError as `readManifest` */
  async parts(): Promise<StoredPart[]> {
    const names = await readdir(this.#root).catch(() => []);
    const found = names.map(parsePartName).filter((part) => part !== null);
    const sealed = found.filter(({ state }) => state !== 'kept');
    return Promise.all(sealed.map(({ name }) => this.openAt(join(this.#root, name))));
  }

  /** Removes a snapshot. Where others need its files it goes out of sight, and goes for good with the last of them. */
  async remove(snapshot: string): Promise<void> {
    await this.removePartial(snapshot);
    await retire(this.#root, snapshot);
  }

  /** Removes what a crash left of a snapshot that was never sealed. */
  async removePartial(snapshot: string): Promise<void> {
    await rm(join(this.#root, partialName(snapshot)), { recursive: true, force: true });
  }

  /** Removes all that crashes left. @param isLive whether a directory of this name is being written right now */
  async sweep(isLive: (name: string) => Promise<boolean>): Promise<string[]> {
    return sweep(this.#root, isLive);
  }
}

/** @throws StaghornError 'not-found' */
function readManifestText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const name = basename(dirname(path));
    const { snapshot } = parsePartName(name) ?? { snapshot: name };
    throw new StaghornError('not-found', `there is no snapshot ${snapshot} here: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** A snapshot that is being written. It exists for others only once `seal` has renamed it. */
export class PartialSnapshot {
  readonly path: string;
  readonly #sealedPath: string;

  constructor(path: string, sealedPath: string) {
    this.path = path;
    this.#sealedPath = sealedPath;
  }

  /** Writes a file, synced, and returns its entry for the manifest. */
  async write(file: string, content: Buffer): Promise<StoredFile> {
    await writeSynced(join(this.path, file), content);
    return { file, bytes: content.length, sha256: sha256Of(content) };
  }

  /**
   * Makes the snapshot exist: every file is on disk before the manifest is, the manifest before the rename,
   * the rename before this returns (fsync(2) of file and directory).
   */
  async seal(manifest: HostManifest): Promise<{ manifestSha256: string; bytes: number }> {
    const text = formatManifest(manifest);
    const own = filesNamedBy(manifest).filter(({ snapshot }) => snapshot === null);
    for (const { file } of own) await syncPath(join(this.path, file));
    await writeSynced(join(this.path, manifestName), Buffer.from(text));
    await syncPath(this.path);
    await rename(this.path, this.#sealedPath);
    await syncPath(dirname(this.#sealedPath));
    return { manifestSha256: sha256Of(text), bytes: await allocatedBytes(this.#sealedPath) };
  }

  async discard(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    await rm(this.#sealedPath, { recursive: true, force: true });
  }
}

/** Disk space that the files of a directory take: holes are free. */
export async function allocatedBytes(directory: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(directory)) bytes += (await stat(join(directory, name))).blocks * 512;
  return bytes;
}

export function sha256Of(content: Buffer | string): string {
  return createHash('sha256').update(content).digest('hex');
}

/** The entry of a file that somebody else has written. */
export async function hashFile(directory: string, file: string, signal?: AbortSignal): Promise<StoredFile> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of createReadStream(join(directory, file), { signal })) {
    hash.update(chunk as Buffer);
    bytes += (chunk as Buffer).length;
  }
  return { file, bytes, sha256: hash.digest('hex') };
}

/** What is read in less time than a thread takes to be asked to. */
const smallBytes = 256 * 1024;

const isSmall = ({ bytes }: StoredFile) => bytes <= smallBytes;

/** One that has grown beyond all expectation is told by its size alone. */
function hashSmallFile(directory: string, file: string): StoredFile {
  const path = join(directory, file);
  const { size } = statSync(path);
  if (size > smallBytes) return { file, bytes: size, sha256: '' };
  const content = readFileSync(path);
  return { file, bytes: content.length, sha256: sha256Of(content) };
}

/** Null, or in words how the file differs from its entry. */
export async function checkFile(
  directory: string,
  entry: StoredFile,
  signal?: AbortSignal,
): Promise<string | null> {
  let found: StoredFile;
  try {
    found = isSmall(entry)
      ? hashSmallFile(directory, entry.file)
      : await hashFile(directory, entry.file, signal);
  } catch (error) {
    return `${entry.file} cannot be read: ${messageOf(error)}`;
  }
  if (found.bytes !== entry.bytes) return `${entry.file} has ${found.bytes} bytes instead of ${entry.bytes}`;
  return found.sha256 === entry.sha256 ? null : `${entry.file} does not have the checksum that was sealed`;
}

async function writeSynced(path: string, content: Buffer): Promise<void> {
  try {
    const file = await open(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    throw asStaghornError(error, 'internal', `writing ${path}: `);
  }
}

export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
