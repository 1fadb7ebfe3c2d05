import { z } from 'zod';

import { instantNs } from '../protocol/instant.ts';

/** A disk image that a snapshot names. It must not change: size, time of modification and inode tell if it did. */
export const storedImage = z.strictObject({
  path: z.string(),
  format: z.string(),
  bytes: z.int().nonnegative(),
  mtimeNs: instantNs,
  inode: instantNs,
  /** Its own header does not name the image below, as in the `-snapshot` mode of QEMU. */
  unlinked: z.boolean(),
});
export type StoredImage = z.infer<typeof storedImage>;

/** A disk of a VM, as it was at the cut. */
export const storedDisk = z.strictObject({
  /** What gave it to the VM on the command line: a drive by its name, or the node of a `-blockdev`. */
  kind: z.enum(['drive', 'blockdev']),
  name: z.string(),
  readOnly: z.boolean(),
  virtualBytes: z.int().nonnegative(),
  /** From what the guest saw down to the base; empty: no medium. */
  chain: z.array(storedImage),
});
export type StoredDisk = z.infer<typeof storedDisk>;

/** Every image that the disks read. */
export function imagesOf(disks: readonly StoredDisk[]): StoredImage[] {
  return [...new Map(disks.flatMap(({ chain }) => chain.map((image) => [image.path, image]))).values()];
}
