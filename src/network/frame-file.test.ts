import { mkdtemp, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { StaghornError } from '../errors/index.ts';
import { decodeFrameFile, encodeFrameFile, MAX_FRAME_BYTES, readFrameFile, writeFrameFile } from './frame-file.ts';
import type { FrameFile } from './frame-file.ts';

const names = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 20, unit: 'grapheme' }), { minLength: 1, maxLength: 5 });
const files: fc.Arbitrary<FrameFile> = names.chain((ports) =>
  fc.record({
    ports: fc.constant(ports),
    frames: fc.array(
      fc.record({
        port: fc.constantFrom(...ports),
        offsetNs: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
        gsoSize: fc.nat({ max: 65_535 }),
        frame: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      }),
      { maxLength: 10 },
    ),
  }),
);

const damaged = expect.objectContaining({ code: 'snapshot-damaged' }) as unknown;

describe('the codec of frames in flight', () => {
  it('gives back what was put in', () => {
    fc.assert(
      fc.property(files, (file) => {
        expect(decodeFrameFile(encodeFrameFile(file))).toEqual(file);
      }),
    );
  });

  it('notices any changed byte', () => {
    fc.assert(
      fc.property(files, fc.nat(), fc.integer({ min: 1, max: 255 }), (file, place, change) => {
        const bytes = encodeFrameFile(file);
        const at = place % bytes.length;
        bytes[at] = (bytes[at] ?? 0) ^ change;
        expect(() => decodeFrameFile(bytes)).toThrow(damaged as Error);
      }),
    );
  });

  it('notices any missing or added end, and garbage', () => {
    fc.assert(
      fc.property(files, fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 100 }), (file, cut, more) => {
        const bytes = encodeFrameFile(file);
        expect(() => decodeFrameFile(bytes.subarray(0, cut % bytes.length))).toThrow(damaged as Error);
        expect(() => decodeFrameFile(Buffer.concat([bytes, more]))).toThrow(damaged as Error);
        expect(() => decodeFrameFile(Buffer.from(more))).toThrow(damaged as Error);
      }),
    );
  });

  it('refuses a version that it does not know, and says which it knows', () => {
    const bytes = encodeFrameFile({ ports: [], frames: [] });
    bytes.writeUInt32LE(9, 8);
    expect(() => decodeFrameFile(bytes)).toThrow(/version 9, and this release reads 1/);
  });

  it('refuses to write frames that it would not read', () => {
    const frame = { port: 'a', offsetNs: 0n, gsoSize: 0, frame: Buffer.alloc(60) };
    expect(() => encodeFrameFile({ ports: ['b'], frames: [frame] })).toThrow(RangeError);
    const oversized = { ...frame, frame: Buffer.alloc(MAX_FRAME_BYTES + 1) };
    expect(() => encodeFrameFile({ ports: ['a'], frames: [oversized] })).toThrow(RangeError);
  });
});

describe('the file of frames in flight', () => {
  let folder: string;
  const file: FrameFile = {
    ports: ['vm1/net0'],
    frames: [{ port: 'vm1/net0', offsetNs: 12_345n, gsoSize: 0, frame: Buffer.alloc(1000, 7) }],
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'staghorn-frames-'));
  });

  afterAll(async () => {
    await rm(folder, { recursive: true });
  });

  it('is read as it was written', async () => {
    const path = join(folder, 'frames');
    const { sizeBytes, sha256 } = await writeFrameFile(path, file);
    expect(sizeBytes).toBe(encodeFrameFile(file).length);
    expect(sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(await readFrameFile(path)).toEqual(file);
  });

  it('is not written over another', async () => {
    const path = join(folder, 'once');
    await writeFrameFile(path, file);
    await expect(writeFrameFile(path, file)).rejects.toThrow(StaghornError);
  });

  it('says what is wrong with a file that is missing, too long, or cut short', async () => {
    await expect(readFrameFile(join(folder, 'none'))).rejects.toMatchObject({ code: 'snapshot-damaged' });
    const path = join(folder, 'cut');
    await writeFrameFile(path, file);
    await expect(readFrameFile(path, { maxBytes: 100 })).rejects.toThrow(/and 100 are allowed/);
    await truncate(path, 500);
    await expect(readFrameFile(path)).rejects.toThrow(/checksum/);
  });
});
