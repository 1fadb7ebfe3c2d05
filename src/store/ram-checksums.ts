import { chunkBytes, type SavedRam } from '../native/ram.ts';
import type { StoredRam } from './manifest.ts';

/** The checksums of RAM as the manifest holds them: little-endian u32, base64. */
export function readChunkChecksums({
  chunkChecksums,
}: SavedRam): Pick<StoredRam, 'chunkBytes' | 'chunkCrc32c'> {
  const bytes = Buffer.alloc(chunkChecksums.length * 4);
  chunkChecksums.forEach((checksum, index) => bytes.writeUInt32LE(checksum, index * 4));
  return { chunkBytes, chunkCrc32c: bytes.toString('base64') };
}

export function parseChunkChecksums({ chunkCrc32c }: StoredRam): Uint32Array {
  const bytes = Buffer.from(chunkCrc32c, 'base64');
  return Uint32Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readUInt32LE(index * 4));
}
