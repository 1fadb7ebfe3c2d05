import { loadAddon } from './addon.ts';

const addon = loadAddon() as { crc32c(bytes: Uint8Array, seed: number): number };

/**
 * CRC-32C (Castagnoli; RFC 3720, appendix B.4). With `seed` the checksum of what came before, it is the checksum of
 * all of it.
 */
export function crc32c(bytes: Uint8Array, seed = 0): number {
  return addon.crc32c(bytes, seed);
}
