import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';

import { StaghornError } from '../errors/index.ts';
import type { HostManifest } from './manifest.ts';
import { storedImage, type StoredImage } from './stored-disks.ts';

/**
 * Where the disk images of a part are that came from elsewhere. Its manifest stays as it was sealed; whoever opens
 * the part sees the images as they are here.
 */
export const placedImagesName = 'placed-images.json';

const placedImages = z.strictObject({
  images: z.array(z.strictObject({ from: z.string(), image: storedImage })),
});

/** By the paths that the manifest has. */
export type PlacedImages = ReadonlyMap<string, StoredImage>;

export function formatPlacedImages(placed: PlacedImages): Buffer {
  const images = [...placed].map(([from, image]) => ({ from, image }));
  return Buffer.from(`${JSON.stringify(z.encode(placedImages, { images }), null, 2)}\n`);
}

/** Empty: its images are where they were. @throws StaghornError 'snapshot-damaged' */
export async function readPlacedImages(directory: string): Promise<PlacedImages> {
  const path = join(directory, placedImagesName);
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (text === null) return new Map();
  try {
    const { images } = z.decode(placedImages, JSON.parse(text) as z.input<typeof placedImages>);
    return new Map(images.map(({ from, image }) => [from, image]));
  } catch (error) {
    throw new StaghornError('snapshot-damaged', `${path} cannot be read`, { cause: error });
  }
}

/** The same manifest, whose disks are where their images are now. */
export function withPlacedImages(manifest: HostManifest, placed: PlacedImages): HostManifest {
  if (placed.size === 0) return manifest;
  const vms = manifest.vms.map((vm) => ({
    ...vm,
    disks: vm.disks.map((disk) => ({
      ...disk,
      chain: disk.chain.map((image) => placed.get(image.path) ?? image),
    })),
  }));
  return { ...manifest, vms };
}
