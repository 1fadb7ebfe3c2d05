import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import {
  identifyPage,
  identitiesHeaderBytes,
  identityKeyBytes,
  pageBytes,
} from '../../src/native/page-identity.ts';
import { rebuildRam } from '../../src/native/ram-check.ts';
import {
  chunkBytes,
  saveRam,
  type SavedRam,
  type SaveParent,
  type StoringOptions,
} from '../../src/native/ram.ts';

const key = randomBytes(identityKeyBytes);
let directory: string;

beforeEach(async () => (directory = await mkdtemp(join(tmpdir(), 'staghorn-layers-'))));
afterEach(() => rm(directory, { recursive: true, force: true }));

const pathOf = (name: string) => join(directory, name);

async function save(name: string, ram: Buffer, storing: Partial<StoringOptions>): Promise<SavedRam> {
  await writeFile(pathOf(`${name}.source`), ram);
  const source = await open(pathOf(`${name}.source`));
  try {
    return await saveRam({
      fd: source.fd,
      regions: [{ address: 0n, length: ram.length, fileOffset: 0 }],
      file: pathOf(`${name}.pages`),
      storing: {
        placesFile: pathOf(`${name}.places`),
        level: 0,
        identities: { file: pathOf(`${name}.identities`), key },
        parent: null,
        ...storing,
      },
      threads: 2,
      niceness: 0,
    });
  } finally {
    await source.close();
  }
}

/** Each generation's parent is the one before; the first one's layer 1 becomes the next one's layer 2. */
const parentOf = (name: string, placesFile: string | null = pathOf(`${name}.places`)): SaveParent => ({
  identitiesFile: pathOf(`${name}.identities`),
  placesFile,
  layerOf: Uint8Array.from({ length: 33 }, (_, layer) => (layer === 0 || layer > 30 ? 0 : layer + 1)),
});

function rebuild(name: string, ram: Buffer, saved: SavedRam, layers: string[], file: string | null) {
  const paths = layers.map((layer) => pathOf(`${layer}.pages`));
  const checksums = saved.chunkChecksums;
  const placesFile = pathOf(`${name}.places`);
  return rebuildRam({ length: ram.length, checksums, placesFile, layers: paths, file });
}

function withPages(ram: Buffer, changes: readonly { page: number; fill: number }[]): Buffer {
  const changed = Buffer.from(ram);
  for (const { page, fill } of changes) {
    const content = fill === 0 ? Buffer.alloc(pageBytes) : Buffer.alloc(pageBytes, `${fill} of ${page}`);
    content.copy(changed, page * pageBytes);
  }
  return changed;
}

/** Two chunks and a bit. */
const pages = 2 * 256 + 3;

describe('RAM in layers', () => {
  test('is rebuilt as it was, from any generation, whatever changed and however it is compressed', async () => {
    const change = fc.record({ page: fc.nat(pages - 1), fill: fc.nat(3) });
    const generation = fc.record({
      changes: fc.array(change, { maxLength: 40 }),
      level: fc.constantFrom(0, 1, 9),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(generation, { minLength: 1, maxLength: 5 }), async (generations) => {
        let ram: Buffer = Buffer.alloc(pages * pageBytes);
        for (const [index, { changes, level }] of generations.entries()) {
          ram = withPages(ram, changes);
          const parent = index === 0 ? null : parentOf(`g${index - 1}`);
          const saved = await save(`g${index}`, ram, { parent, level });
          const layers = Array.from({ length: index + 1 }, (_, back) => `g${index - back}`);
          const file = pathOf('rebuilt');
          await rm(file, { force: true });
          expect((await rebuild(`g${index}`, ram, saved, layers, file)).ok).toBe(true);
          expect((await readFile(file)).equals(ram)).toBe(true);
        }
      }),
      { numRuns: 25 },
    );
  });

  test('holds only the pages that differ from a parent stored in full', async () => {
    const ram = randomBytes(pages * pageBytes);
    ram.fill(0, 5 * pageBytes, 9 * pageBytes);
    await save('full', ram, { placesFile: null });
    const changed = withPages(
      ram,
      [3, 300, pages - 1, 20].map((page) => ({ page, fill: 7 })),
    );
    changed.fill(0, 40 * pageBytes, 41 * pageBytes);
    const saved = await save('child', changed, { parent: parentOf('full', null) });
    expect(saved.dataBytes).toBe(4 * pageBytes);
    expect(saved.layerPages.slice(0, 3)).toEqual([4, pages - 4 - 4 - 1, 0]);
    expect((await rebuild('child', changed, saved, ['child', 'full'], pathOf('rebuilt'))).ok).toBe(true);
    expect((await readFile(pathOf('rebuilt'))).equals(changed)).toBe(true);
  });

  test('takes less room compressed, and none for what does not get shorter', async () => {
    const words = Buffer.alloc(chunkBytes, 'all work and no play ');
    const noise = randomBytes(chunkBytes);
    const ram = Buffer.concat([words, noise]);
    const saved = await save('packed', ram, { level: 3 });
    expect(saved.dataBytes).toBeGreaterThan(chunkBytes);
    expect(saved.dataBytes).toBeLessThan(chunkBytes + chunkBytes / 100);
    expect((await stat(pathOf('packed.pages'))).size).toBe(saved.fileBytes);
    expect((await rebuild('packed', ram, saved, ['packed'], null)).ok).toBe(true);
  });

  test('is not rebuilt from a file that is damaged or ends too early, and nothing is left', async () => {
    const ram = randomBytes(pages * pageBytes);
    const saved = await save('whole', ram, { level: 1 });
    const pagesFile = await open(pathOf('whole.pages'), 'r+');
    const attempt = () => rebuild('whole', ram, saved, ['whole'], pathOf('rebuilt'));
    const { buffer: byte } = await pagesFile.read(Buffer.alloc(1), 0, 1, chunkBytes);
    await pagesFile.write(Buffer.from([byte[0]! ^ 1]), 0, 1, chunkBytes);
    expect((await attempt()).ok).toBe(false);
    await pagesFile.write(byte, 0, 1, chunkBytes);
    expect((await rebuild('whole', ram, saved, ['whole'], null)).ok).toBe(true);
    await pagesFile.truncate(saved.fileBytes - 1);
    await pagesFile.close();
    expect((await attempt()).ok).toBe(false);
    expect(await readdir(directory)).not.toContain('rebuilt');
  });
});

describe('the identity of a page', () => {
  test('is what the product of polynomials gives, bit by bit', () => {
    const page = randomBytes(pageBytes);
    expect(identifyPage(key, page)).toEqual(slowIdentity(page));
    expect(identifyPage(key, Buffer.alloc(pageBytes))).toEqual(Buffer.alloc(16));
  });

  test('is stored for each page behind a header with the key, zeros as holes', async () => {
    const ram = withPages(Buffer.alloc(pages * pageBytes), [{ page: 301, fill: 1 }]);
    await save('one', ram, { placesFile: null });
    const stored = await readFile(pathOf('one.identities'));
    expect(stored.subarray(16, 32)).toEqual(key);
    const identities = stored.subarray(identitiesHeaderBytes);
    expect(identities.length).toBe(pages * 16);
    const page = ram.subarray(301 * pageBytes, 302 * pageBytes);
    expect(identities.subarray(301 * 16, 302 * 16)).toEqual(identifyPage(key, page));
    identities.fill(0, 301 * 16, 302 * 16);
    expect(identities.equals(Buffer.alloc(pages * 16))).toBe(true);
  });
});

/** Horner's rule over GF(2^128), little-endian, modulo x^128 + x^7 + x^2 + x + 1. */
function slowIdentity(page: Buffer): Buffer {
  const toNumber = (bytes: Buffer) => bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  const point = toNumber(key);
  let value = 0n;
  for (let at = 0; at < page.length; at += 16)
    value = multiply(value ^ toNumber(page.subarray(at, at + 16)), point);
  return Buffer.from(Array.from({ length: 16 }, (_, byte) => Number((value >> BigInt(8 * byte)) & 0xffn)));
}

function multiply(a: bigint, b: bigint): bigint {
  let product = 0n;
  for (let bit = 127n; bit >= 0n; bit--) {
    product <<= 1n;
    if ((product >> 128n) & 1n) product ^= (1n << 128n) | 0x87n;
    if ((b >> bit) & 1n) product ^= a;
  }
  return product;
}
