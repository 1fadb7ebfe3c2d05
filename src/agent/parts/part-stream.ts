import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import type { Writable } from 'node:stream';

import { asStaghornError, StaghornError } from '../../errors/index.ts';
import { compressEntries } from '../../archive/compress.ts';
import { packFiles } from '../../archive/pack.ts';
import { SparseWriter } from '../../archive/sparse-writer.ts';
import { TarDecoder, tarEnd, type TarFile } from '../../archive/tar.ts';
import { decompressZstd } from '../../native/zstd-stream.ts';
import { listPartFiles } from '../../store/part-files.ts';
import type { PlacedImages } from '../../store/placed-images.ts';
import { ReceivedPart, type ReceivedName } from '../../store/receiving.ts';
import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import { disksOf } from '../../vmm/disks/collect.ts';
import type { DiskDirectory } from '../../vmm/disks/disk-directory.ts';
import { ReceivedImages, type EntryWriter } from '../../vmm/disks/receive-images.ts';
import { ImageSender } from '../../vmm/disks/send-images.ts';
import { thisProcess } from '../../vmm/process-identity.ts';
import { findPartDamage } from './verify-snapshot.ts';

export interface SendOptions {
  readonly snapshot: string;
  readonly manifestSha256: string;
  /** Before each name. */
  readonly prefix: string;
  /** Whether the archive ends with this part. */
  readonly isLast: boolean;
}

/** Writes a part of a snapshot as entries of a tar archive, compressed as one zstd frame. */
export async function sendPart(store: SnapshotStore, options: SendOptions, output: Writable): Promise<void> {
  const { snapshot, manifestSha256, prefix, isLast } = options;
  const part = await store.open(snapshot, manifestSha256);
  const [manifest, ...files] = await listPartFiles(store, part);
  const images = await ImageSender.open(part.directory);
  async function* entries() {
    yield* packFiles([manifest!], prefix);
    yield await images.list(prefix);
    yield* packFiles(files, prefix);
    yield* images.entries(prefix);
    if (isLast) yield tarEnd;
  }
  for await (const chunk of compressEntries(entries())) {
    if (!output.write(chunk)) await once(output, 'drain');
  }
}

export interface ReceiveOptions extends ReceivedName {
  /** It is of a time when disk images stayed where they were. */
  readonly withoutImages?: boolean;
}

/**
 * Reads what `sendPart` wrote into the store. Nothing of it is there unless it came whole and every checksum is
 * right. @returns its bytes
 */
export async function receivePart(
  store: SnapshotStore,
  expected: ReceiveOptions,
  input: AsyncIterable<Buffer>,
): Promise<number> {
  await mkdir(store.root, { recursive: true, mode: 0o700 });
  const { pid, startTicks } = thisProcess();
  const part = await ReceivedPart.begin(store, expected, `${pid}-${startTicks}`);
  const unpacking = new Unpacking(part, disksOf(store), expected.withoutImages ?? false);
  try {
    await unpacking.take(decompressZstd(input));
    part.requireComplete();
    await part.place(await unpacking.placeImages());
    const { bytes, problems } = await findPartDamage(await part.opened());
    if (problems.length > 0)
      throw new StaghornError('snapshot-damaged', problems.join('; '), { context: { problems } });
    await part.seal();
    return bytes;
  } catch (error) {
    await part.discard();
    await unpacking.discardImages();
    throw asStaghornError(error, 'snapshot-damaged', 'this part of a snapshot cannot be read: ');
  }
}

class Unpacking {
  readonly #part: ReceivedPart;
  readonly #disks: DiskDirectory;
  readonly #withoutImages: boolean;
  #images: ReceivedImages | null = null;
  #hasRoom = false;

  constructor(part: ReceivedPart, disks: DiskDirectory, withoutImages: boolean) {
    this.#part = part;
    this.#disks = disks;
    this.#withoutImages = withoutImages;
  }

  async take(content: AsyncIterable<Buffer>): Promise<void> {
    const decoder = new TarDecoder();
    let writer: EntryWriter | null = null;
    try {
      for await (const chunk of content) {
        for (const event of decoder.push(chunk)) {
          if (event.kind === 'file') writer = await this.#create(event.file);
          if (event.kind === 'data') await writer?.write(event.data);
          if (event.kind !== 'fileEnd') continue;
          await writer?.end();
          writer = null;
          await this.#checkHead();
        }
      }
      decoder.end();
    } finally {
      await writer?.close();
    }
  }

  async placeImages(): Promise<PlacedImages> {
    return (await this.#images?.place()) ?? new Map();
  }

  async discardImages(): Promise<void> {
    await this.#images?.discard();
  }

  async #create({ name, bytes }: TarFile): Promise<EntryWriter> {
    const ofImages = await this.#images?.create(name, bytes);
    return ofImages ?? new SparseWriter(await this.#part.create(name, bytes));
  }

  /** Once the manifest, and the list of images if there are any, say what is to come. */
  async #checkHead(): Promise<void> {
    const manifest = await this.#part.readManifest();
    this.#images ??= new ReceivedImages(this.#withoutImages ? { vms: [] } : manifest, this.#disks);
    const { storedBytes } = this.#images;
    if (this.#hasRoom || storedBytes === null) return;
    await this.#part.requireRoom(storedBytes);
    this.#hasRoom = true;
  }
}
