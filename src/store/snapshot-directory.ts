import { createHash } from 'node:crypto';
import { constants, createReadStream } from 'node:fs';
import { mkdir, open, readdir, readFile, rename, rm, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { asStaghornError, messageOf, StaghornError } from '../errors/index.ts';
import { snapshotId } from '../protocol/names.ts';
import { formatManifest, parseManifest, type HostManifest, type StoredFile } from './manifest.ts';

const manifestName = 'manifest.json';
const partialSuffix = '.partial';

/** Where an agent keeps its host's snapshots: one directory a snapshot, readable by root only. */
export class SnapshotStore {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
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
    const partial = `${this.pathOf(snapshot)}${partialSuffix}`;
    await rm(partial, { recursive: true, force: true });
    await mkdir(partial, { recursive: true, mode: 0o700 });
    return new PartialSnapshot(partial, this.pathOf(snapshot));
  }

  /**
   * The manifest of a sealed snapshot, checked against the checksum that the controller keeps.
   * @throws StaghornError 'not-found', 'snapshot-damaged', 'snapshot-unfit'
   */
  async readManifest(snapshot: string, sha256: string | null): Promise<HostManifest> {
    const path = join(this.pathOf(snapshot), manifestName);
    const text = await readFile(path, 'utf8').catch((error: unknown) => {
      throw new StaghornError('not-found', `there is no snapshot ${snapshot} here: ${messageOf(error)}`, {
        cause: error,
      });
    });
    if (sha256 !== null && sha256Of(text) !== sha256) {
      throw new StaghornError('snapshot-damaged', `${path} does not have the checksum that was sealed`);
    }
    return parseManifest(text, path);
  }

  /** The ids of everything that is sealed here. */
  async sealed(): Promise<string[]> {
    const names = await readdir(this.#root).catch(() => []);
    return names.filter((name) => snapshotId.safeParse(name).success);
  }

  async remove(snapshot: string): Promise<void> {
    await rm(this.pathOf(snapshot), { recursive: true, force: true });
    await this.removePartial(snapshot);
  }

  /** Removes what a crash left of a snapshot that was never sealed. */
  async removePartial(snapshot: string): Promise<void> {
    await rm(`${this.pathOf(snapshot)}${partialSuffix}`, { recursive: true, force: true });
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
    for (const { ram, blocks } of manifest.vms) {
      for (const { file } of [ram, ...blocks]) await syncPath(join(this.path, file));
    }
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

/** Null, or in words how the file differs from its entry. */
export async function checkFile(
  directory: string,
  entry: StoredFile,
  signal?: AbortSignal,
): Promise<string | null> {
  let found: StoredFile;
  try {
    found = await hashFile(directory, entry.file, signal);
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

async function syncPath(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
