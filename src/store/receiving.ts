import { constants } from 'node:fs';
import { mkdir, open, readFile, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { asStaghornError, StaghornError } from '../errors/index.ts';
import { filesNamedBy, requirePlainName } from './manifest-files.ts';
import { parseManifest, type HostManifest } from './manifest.ts';
import { isThere } from './kept-snapshots.ts';
import { copyName, manifestName, needsDirectory, receivingName } from './part-names.ts';
import {
  formatPlacedImages,
  placedImagesName,
  withPlacedImages,
  type PlacedImages,
} from './placed-images.ts';
import { ramsOf } from './ram-parent.ts';
import { sha256Of, SnapshotStore, syncPath, type StoredPart } from './snapshot-directory.ts';

export interface ReceivedName {
  readonly snapshot: string;
  readonly manifestSha256: string;
  /** 'own': the host's own part, of a snapshot that is imported. 'copy': beside what the host has of it. */
  readonly as: 'own' | 'copy';
}

const manifestMaxBytes = 64 * 1024 * 1024;
const spareBytes = 64 * 1024 * 1024;

/**
 * A part of a snapshot that comes from elsewhere. It exists for others only once it was sealed.
 * Invariants: the manifest comes first and has the checksum that was promised; a file comes once, and only if the
 * manifest names it; all together are no larger than the manifest says.
 */
export class ReceivedPart {
  readonly directory: string;
  readonly #final: string;
  readonly #expected: ReceivedName;
  readonly #missing = new Set<string>([manifestName]);
  #manifest: HostManifest | null = null;
  #placed: PlacedImages = new Map();
  #roomBytes = manifestMaxBytes;

  private constructor(directory: string, final: string, expected: ReceivedName) {
    this.directory = directory;
    this.#final = final;
    this.#expected = expected;
  }

  /** @param owner this process, as PID-TICKS @throws StaghornError 'conflict' if the store has it already */
  static async begin(store: SnapshotStore, expected: ReceivedName, owner: string): Promise<ReceivedPart> {
    const { snapshot, manifestSha256, as } = expected;
    const name = as === 'own' ? snapshot : copyName(snapshot, manifestSha256);
    const final = join(store.root, name);
    if (await isThere(final))
      throw new StaghornError('conflict', `there is a snapshot ${snapshot} here already`);
    const directory = join(store.root, receivingName(name, owner));
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return new ReceivedPart(directory, final, expected);
  }

  /** The next file. @throws StaghornError 'snapshot-damaged' if it has no business here */
  async create(name: string, bytes: number): Promise<FileHandle> {
    if (!this.#missing.delete(name))
      throw damaged(`it has ${JSON.stringify(name)}, which it should not, or twice`);
    this.#roomBytes -= bytes;
    if (this.#roomBytes < 0) throw damaged(`${name} is larger than it should be`);
    const path = join(this.directory, name);
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    return open(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  }

  /** To be told when the first file, the manifest, is complete. @throws StaghornError 'snapshot-damaged', 'snapshot-unfit' */
  async readManifest(): Promise<HostManifest> {
    if (this.#manifest !== null) return this.#manifest;
    const text = await readFile(join(this.directory, manifestName), 'utf8').catch((error: unknown) => {
      throw asStaghornError(error, 'snapshot-damaged', 'it has no manifest: ');
    });
    if (sha256Of(text) !== this.#expected.manifestSha256)
      throw damaged('its manifest does not have the checksum that was sealed');
    const manifest = parseManifest(text, manifestName);
    if (manifest.snapshot !== this.#expected.snapshot)
      throw damaged(`it is of snapshot ${manifest.snapshot}`);
    this.#roomBytes = spareBytes;
    for (const { snapshot, file, bytes } of filesNamedBy(manifest)) {
      if (snapshot !== null) requirePlainName(snapshot);
      this.#missing.add(snapshot === null ? file : `${needsDirectory}/${snapshot}/${file}`);
      this.#roomBytes += bytes;
    }
    return (this.#manifest = manifest);
  }

  /** @param besideBytes what comes with it and lies elsewhere in the store @throws StaghornError 'disk-full' */
  async requireRoom(besideBytes: number): Promise<void> {
    const manifest = await this.readManifest();
    const stored = new Map(
      manifest.vms.flatMap(ramsOf).map(({ file, storedBytes }) => [file, storedBytes] as const),
    );
    const files = filesNamedBy(manifest).map(({ snapshot, file, bytes }) =>
      snapshot === null ? Math.min(bytes, stored.get(file) ?? bytes) : bytes,
    );
    const neededBytes = files.reduce((sum, bytes) => sum + bytes, besideBytes + spareBytes);
    const freeBytes = await SnapshotStore.containing(this.#final).freeBytes();
    if (freeBytes >= neededBytes) return;
    const [needed, free] = [neededBytes, freeBytes].map((bytes) => Math.ceil(bytes / 2 ** 20));
    throw new StaghornError(
      'disk-full',
      `the store needs ${needed} MiB for this part of a snapshot, and has ${free} MiB free`,
    );
  }

  /** Where its disk images are; to be told before it is sealed. */
  async place(images: PlacedImages): Promise<void> {
    this.#placed = images;
    if (images.size === 0) return;
    const file = await open(join(this.directory, placedImagesName), 'wx', 0o600);
    try {
      await file.writeFile(formatPlacedImages(images));
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** As it will be seen in the store. */
  async opened(): Promise<StoredPart> {
    const manifest = withPlacedImages(await this.readManifest(), this.#placed);
    return { manifest, directory: this.directory };
  }

  /** @throws StaghornError 'snapshot-damaged' */
  requireComplete(): void {
    const [missing] = this.#missing;
    if (missing !== undefined) throw damaged(`${missing} is missing`);
  }

  /** Makes it exist: files first, then their directories, then the name (fsync(2)). */
  async seal(): Promise<void> {
    const manifest = await this.readManifest();
    const directories = new Set([this.directory]);
    for (const { snapshot, file } of filesNamedBy(manifest)) {
      const directory = snapshot === null ? this.directory : join(this.directory, needsDirectory, snapshot);
      await syncPath(join(directory, file));
      directories.add(directory);
      if (snapshot !== null) directories.add(dirname(directory));
    }
    await syncPath(join(this.directory, manifestName));
    for (const directory of directories) await syncPath(directory);
    await rename(this.directory, this.#final);
    await syncPath(dirname(this.#final));
  }

  async discard(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

const damaged = (what: string) =>
  new StaghornError('snapshot-damaged', `this part of a snapshot is not whole: ${what}`);
