import { describe, expect, test } from 'vitest';
import { crc32c } from './checksum.ts';

function bitwise(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

describe('crc32c', () => {
  test('gives the check value of the catalogue and the examples of RFC 3720', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
    expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43);
    expect(crc32c(new Uint8Array())).toBe(0);
  });

  test('is the same in one piece, in pieces, and bit by bit, below and above where it is split', () => {
    const bytes = Uint8Array.from({ length: 70_003 }, (_, i) => (i * 2654435761) >>> 13);
    for (const length of [1, 7, 8, 9, 4095, 16_383, 16_384, 16_391, 70_003]) {
      const part = bytes.subarray(0, length);
      expect(crc32c(part)).toBe(bitwise(part));
      const cut = Math.floor(length / 3);
      expect(crc32c(part.subarray(cut), crc32c(part.subarray(0, cut)))).toBe(bitwise(part));
    }
  });
});
