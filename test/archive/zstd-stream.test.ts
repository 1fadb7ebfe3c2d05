import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, expect, it } from 'vitest';

import { compressZstd, decompressZstd } from '../../src/native/zstd-stream.ts';

const inPieces = (bytes: Buffer, size: number) =>
  Readable.from(
    (function* () {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    })(),
  );
const compressed = (bytes: Buffer, piece = 65_536) => buffer(compressZstd(inPieces(bytes, piece), 1));
const unpacked = (bytes: Buffer, piece = 65_536) => buffer(decompressZstd(inPieces(bytes, piece)));

describe('a zstd stream', () => {
  it.each([
    ['nothing', Buffer.alloc(0)],
    ['a byte', Buffer.from('x')],
    ['noise', randomBytes(3_000_001)],
    ['zeros, of which a few bytes hold many', Buffer.alloc(20_000_000)],
    ['exactly one output buffer', Buffer.alloc(512 * 1024)],
  ])('gives back %s, in whatever pieces it comes', async (_what, bytes) => {
    const packed = await compressed(bytes, 70_001);
    expect((await unpacked(packed)).equals(bytes)).toBe(true);
    expect((await unpacked(packed, 1_777)).equals(bytes)).toBe(true);
  });

  it('reads frames that follow each other as one', async () => {
    const parts = [
      Buffer.from('one, '),
      randomBytes(600_000),
      Buffer.alloc(1_048_576),
      Buffer.from(' and four'),
    ];
    const packed = Buffer.concat(await Promise.all(parts.map((part) => compressed(part))));
    expect((await unpacked(packed)).equals(Buffer.concat(parts))).toBe(true);
  });

  it('is what the zstd command reads and writes', async () => {
    const bytes = Buffer.concat([randomBytes(100_000), Buffer.alloc(5_000_000)]);
    const options = { maxBuffer: 2 ** 24 };
    expect(execFileSync('zstd', ['-dc'], { ...options, input: await compressed(bytes) }).equals(bytes)).toBe(
      true,
    );
    expect((await unpacked(execFileSync('zstd', ['-c'], { ...options, input: bytes }))).equals(bytes)).toBe(
      true,
    );
  });

  it('refuses what is cut off, and what was changed', async () => {
    const packed = await compressed(randomBytes(700_000));
    await expect(unpacked(packed.subarray(0, -1))).rejects.toMatchObject({ code: 'EBADMSG' });
    await expect(unpacked(packed.subarray(0, 3))).rejects.toMatchObject({ code: 'EBADMSG' });
    packed[350_000]! ^= 1;
    await expect(unpacked(packed)).rejects.toMatchObject({ code: 'EBADMSG' });
    await expect(unpacked(Buffer.from('plain text'))).rejects.toMatchObject({ code: 'EBADMSG' });
  });

  it('gives a bomb out piece by piece', async () => {
    const bomb = await buffer(
      compressZstd(
        (async function* () {
          for (let i = 0; i < 500; i++) yield Buffer.alloc(1024 * 1024);
        })(),
        1,
      ),
    );
    expect(bomb.length).toBeLessThan(100_000);
    const pieces = decompressZstd(Readable.from([bomb]));
    const { value } = await pieces.next();
    expect(value?.length).toBeLessThanOrEqual(1024 * 1024);
    await pieces.return();
  });
});
