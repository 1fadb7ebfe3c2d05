import { createHash, type Hash } from 'node:crypto';
import { constants } from 'node:fs';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';

import { StaghornError } from '../../errors/index.ts';
import { SparseWriter } from '../../archive/sparse-writer.ts';
import type { HostManifest } from '../../store/manifest.ts';
import type { PlacedImages } from '../../store/placed-images.ts';
import {
  formatImageDigests,
  imageDigestsName,
  imageEntryName,
  imageListName,
  imagesNamedBy,
  imageTextMaxBytes,
  parseImageList,
  type SentImage,
} from '../../store/sent-images.ts';
import { syncPath } from '../../store/snapshot-directory.ts';
import type { StoredDisk, StoredImage } from '../../store/stored-disks.ts';
import { partialSuffix, type DiskDirectory } from './disk-directory.ts';
import { readIdentity } from './image-identity.ts';
import { headerClusterBytes, withBacking } from './qcow2-backing.ts';
import type { BackingImage } from './qcow2.ts';

/** Takes the content of an entry. */
export interface EntryWriter {
  write(data: Buffer): Promise<void>;
  end(): Promise<void>;
  close(): Promise<void>;
}

interface Received {
  readonly image: StoredImage;
  /** Without the suffix that it has until it is whole. */
  readonly path: string;
  readonly hash: Hash;
}

/**
 * The disk images of a part that comes from elsewhere.
 * Invariants: the list comes first; an image comes once, with the size that the manifest says; until all checksums
 * were compared each has a name that nobody uses; whatever this leaves is collected with unused images.
 */
export class ReceivedImages {
  readonly #directory: DiskDirectory;
  readonly #vms: HostManifest['vms'];
  readonly #named: readonly StoredImage[];
  readonly #received = new Map<number, Received>();
  #list: readonly SentImage[] | null = null;
  #digests: string | null = null;

  constructor({ vms }: Pick<HostManifest, 'vms'>, directory: DiskDirectory) {
    this.#vms = vms;
    this.#directory = directory;
    this.#named = imagesNamedBy({ vms });
  }

  /** What the images take at most; null: it is not known yet. */
  get storedBytes(): number | null {
    if (this.#named.length === 0) return 0;
    return this.#list?.reduce((sum, { bytes, storedBytes }) => sum + Math.min(bytes, storedBytes), 0) ?? null;
  }

  /** Null: it is nothing of the images. @throws StaghornError 'snapshot-damaged' if it has no business here */
  async create(name: string, bytes: number): Promise<EntryWriter | null> {
    if (this.#named.length === 0) return null;
    if (name === imageListName && this.#list === null)
      return textWriter(name, bytes, (text) => (this.#list = parseImageList(text, this.#named)));
    if (name === imageDigestsName && this.#digests === null)
      return textWriter(name, bytes, (text) => (this.#digests = text));
    const index = this.#named.findIndex((_, at) => name === imageEntryName(at));
    const image = this.#named[index];
    if (image === undefined) return null;
    if (this.#list === null) throw damaged(`${name} comes before ${imageListName}`);
    if (this.#received.has(index)) throw damaged(`it has ${name} twice`);
    if (bytes !== image.bytes) throw damaged(`${name} has ${bytes} bytes instead of ${image.bytes}`);
    return this.#createImage(index, image);
  }

  async #createImage(index: number, image: StoredImage): Promise<EntryWriter> {
    const { name } = this.#userOf(image);
    const path = await this.#directory.newPath(name, image.format === 'raw' ? 'raw' : 'qcow2');
    const hash = createHash('sha256');
    this.#received.set(index, { image, path, hash });
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL;
    return new SparseWriter(await open(`${path}${partialSuffix}`, flags, 0o600), hash);
  }

  /** Makes them what disks may be started on. @throws StaghornError 'snapshot-damaged', 'snapshot-unfit' */
  async place(): Promise<PlacedImages> {
    const all = this.#named.map((_, index) => this.#received.get(index));
    if (this.#named.length > 0 && this.#list === null) throw damaged(`${imageListName} is missing`);
    const missing = all.findIndex((received) => received === undefined);
    if (missing !== -1) throw damaged(`${imageEntryName(missing)} is missing: ${this.#named[missing]!.path}`);
    const received = all.filter((each) => each !== undefined);
    this.#requireDigests(received);
    const paths = new Map(received.map(({ image, path }) => [image.path, path]));
    const placed = new Map<string, StoredImage>();
    for (const each of received) placed.set(each.image.path, await this.#placeOne(each, paths));
    if (received.length > 0) await syncPath(this.#directory.path);
    return placed;
  }

  async discard(): Promise<void> {
    for (const { path } of this.#received.values()) {
      await rm(`${path}${partialSuffix}`, { force: true });
      await this.#directory.remove([path]);
    }
  }

  #requireDigests(received: readonly Received[]): void {
    if (received.length === 0) return;
    if (this.#digests === null) throw damaged(`${imageDigestsName} is missing`);
    const sealed = this.#digests.split('\n');
    const found = formatImageDigests(received.map(({ hash }) => hash.digest('hex')))
      .toString()
      .split('\n');
    const wrong = found.findIndex((line, index) => line !== sealed[index]);
    if (wrong === -1 && sealed.length === found.length) return;
    const image = received[wrong]?.image.path ?? imageDigestsName;
    throw damaged(`disk image ${image} does not have the checksum that it was sent with`);
  }

  async #placeOne({ image, path }: Received, paths: ReadonlyMap<string, string>): Promise<StoredImage> {
    const { uid, gid } = this.#userOf(image);
    const file = await open(`${path}${partialSuffix}`, 'r+');
    try {
      if (image.format === 'qcow2') await rebase(file, this.#backingOf(image, paths));
      await file.chown(uid, gid);
      await file.chmod(0o400);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}${partialSuffix}`, path);
    return { ...image, path, unlinked: false, ...(await readIdentity(path)) };
  }

  /** What is below it, which is the same wherever it is used. */
  #backingOf({ path }: StoredImage, paths: ReadonlyMap<string, string>): BackingImage | null {
    const below = this.#disks().flatMap(({ chain }) =>
      chain.flatMap((image, index) => (image.path === path ? [chain[index + 1] ?? null] : [])),
    );
    const [first = null] = below;
    if (below.some((image) => image?.path !== first?.path))
      throw new StaghornError(
        'snapshot-unfit',
        `disk image ${path} is on different images for different disks`,
      );
    return first === null ? null : { path: paths.get(first.path)!, format: first.format };
  }

  #userOf({ path }: StoredImage): HostManifest['vms'][number] {
    return this.#vms.find(({ disks }) => disks.some(({ chain }) => chain.some((one) => one.path === path)))!;
  }

  #disks(): StoredDisk[] {
    return this.#vms.flatMap(({ disks }) => disks);
  }
}

async function rebase(file: FileHandle, backing: BackingImage | null): Promise<void> {
  const start = await readStart(file, 512);
  const cluster = await readStart(file, headerClusterBytes(start));
  await file.write(withBacking(cluster, backing), 0, cluster.length, 0);
}

async function readStart(file: FileHandle, bytes: number): Promise<Buffer> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, 0);
  return buffer.subarray(0, bytesRead);
}

function textWriter(name: string, bytes: number, take: (text: string) => void): EntryWriter {
  if (bytes > imageTextMaxBytes) throw damaged(`${name} is larger than it should be`);
  const chunks: Buffer[] = [];
  return {
    write: (data) => {
      chunks.push(Buffer.from(data));
      return Promise.resolve();
    },
    end: () => {
      take(Buffer.concat(chunks).toString('utf8'));
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
  };
}

const damaged = (what: string) =>
  new StaghornError('snapshot-damaged', `this part of a snapshot is not whole: ${what}`);
