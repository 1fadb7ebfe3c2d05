import { z } from 'zod';

import { StaghornError } from '../errors/index.ts';
import type { HostManifest } from './manifest.ts';
import { imagesOf, type StoredImage } from './stored-disks.ts';

/**
 * How the disk images of a part travel with it (docs/snapshot-format.md#disk-images): a list after the manifest, each
 * image once, and at the end the checksums of all, as sha256sum(1) writes and checks them.
 */
export const imageListName = 'images.json';
export const imageDigestsName = 'images.sha256';
export const imageEntryName = (index: number) => `images/${index}`;
/** Of the list and of the checksums. */
export const imageTextMaxBytes = 16 * 1024 * 1024;

const imageList = z.strictObject({
  images: z.array(
    z.strictObject({
      /** As the manifest calls it. */
      path: z.string(),
      bytes: z.int().nonnegative(),
      /** What it takes at most where it lies: holes are free. */
      storedBytes: z.int().nonnegative(),
    }),
  ),
});
export type SentImage = z.infer<typeof imageList>['images'][number];

/** Every image that a manifest names, in the order in which they travel. */
export const imagesNamedBy = ({ vms }: Pick<HostManifest, 'vms'>): StoredImage[] =>
  imagesOf(vms.flatMap(({ disks }) => disks));

export const formatImageList = (images: readonly SentImage[]): Buffer =>
  Buffer.from(`${JSON.stringify({ images }, null, 2)}\n`);

/** @throws StaghornError 'snapshot-damaged' if it is not the list of these images */
export function parseImageList(text: string, named: readonly StoredImage[]): SentImage[] {
  const parsed = imageList.safeParse(readJson(text));
  if (!parsed.success) throw damaged(z.prettifyError(parsed.error));
  const { images } = parsed.data;
  const same = (image: StoredImage, index: number) =>
    images[index]?.path === image.path && images[index].bytes === image.bytes;
  if (images.length !== named.length || !named.every(same))
    throw damaged('it does not have the images of the manifest');
  return images;
}

export const formatImageDigests = (sha256s: readonly string[]): Buffer =>
  Buffer.from(sha256s.map((sha256, index) => `${sha256}  ${imageEntryName(index)}\n`).join(''));

function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const damaged = (what: string) =>
  new StaghornError('snapshot-damaged', `${imageListName} is not a list of images: ${what}`);
