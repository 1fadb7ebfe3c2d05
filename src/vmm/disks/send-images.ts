import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';

import { packBytes, readWhole } from '../../archive/pack.ts';
import { tarHeader, tarPadding } from '../../archive/tar.ts';
import { StaghornError } from '../../errors/index.ts';
import { parseManifest } from '../../store/manifest.ts';
import { manifestName } from '../../store/part-names.ts';
import { readPlacedImages } from '../../store/placed-images.ts';
import {
  formatImageDigests,
  formatImageList,
  imageDigestsName,
  imageEntryName,
  imageListName,
  imagesNamedBy,
} from '../../store/sent-images.ts';
import type { StoredImage } from '../../store/stored-disks.ts';
import { findImageDamage } from './image-identity.ts';

interface LocalImage {
  /** As the manifest calls it. */
  readonly from: string;
  /** As it lies here. */
  readonly image: StoredImage;
}

/** What is all in one file, and whose header can be given another path. */
const sentFormats = new Set(['qcow2', 'raw']);

/**
 * The disk images of a part: the list that comes first, and the entries that come last.
 * Each image is read once, from its beginning to its end; that it is what was sealed is asked before and afterwards.
 */
export class ImageSender {
  readonly #images: readonly LocalImage[];

  private constructor(images: readonly LocalImage[]) {
    this.#images = images;
  }

  /** @throws StaghornError 'snapshot-damaged', 'snapshot-unfit' */
  static async open(directory: string): Promise<ImageSender> {
    const path = join(directory, manifestName);
    const manifest = parseManifest(await readFile(path, 'utf8'), path);
    const placed = await readPlacedImages(directory);
    const images = imagesNamedBy(manifest).map((image) => ({
      from: image.path,
      image: placed.get(image.path) ?? image,
    }));
    for (const { image } of images) await requireSendable(image);
    return new ImageSender(images);
  }

  /** Nothing if there are no images. */
  async list(prefix: string): Promise<Buffer> {
    if (this.#images.length === 0) return Buffer.alloc(0);
    const listed = await Promise.all(
      this.#images.map(async ({ from, image: { path, bytes } }) => {
        return { path: from, bytes, storedBytes: (await stat(path)).blocks * 512 };
      }),
    );
    return packBytes(`${prefix}${imageListName}`, formatImageList(listed));
  }

  async *entries(prefix: string): AsyncGenerator<Buffer, void, undefined> {
    if (this.#images.length === 0) return;
    const digests: string[] = [];
    for (const [index, { image }] of this.#images.entries()) {
      const { path, bytes } = image;
      const hash = createHash('sha256');
      yield tarHeader({ name: `${prefix}${imageEntryName(index)}`, bytes });
      yield* readWhole(path, bytes, hash);
      yield tarPadding(bytes);
      await requireSendable(image);
      digests.push(hash.digest('hex'));
    }
    yield packBytes(`${prefix}${imageDigestsName}`, formatImageDigests(digests));
  }
}

async function requireSendable(image: StoredImage): Promise<void> {
  const damage = await findImageDamage(image);
  if (damage !== null)
    throw new StaghornError('snapshot-damaged', damage, { context: { problems: [damage] } });
  if (sentFormats.has(image.format)) return;
  const words = `disk image ${image.path} has the format ${image.format}; only raw and qcow2 go to other stores`;
  throw new StaghornError('snapshot-unfit', words, { context: { problems: [words] } });
}
