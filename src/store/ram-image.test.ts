import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { saveRam } from '../native/ram.ts';
import type { StoredRam } from './manifest.ts';
import { RamForm } from './ram-form.ts';
import { findImageDamage, findStoredDamage, ramFileOf, removeStaleImages } from './ram-image.ts';
import { SnapshotStore } from './snapshot-directory.ts';

const content = Buffer.concat([randomBytes(1024 * 1024), Buffer.alloc(3 * 1024 * 1024, 'RAM')]);
const { signal } = new AbortController();
let root: string;
let directory: string;
let store: SnapshotStore;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'staghorn-image-'));
  store = new SnapshotStore(root);
  directory = store.pathOf('20261122T120000Z-abcdef');
  await mkdir(directory);
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** RAM as a snapshot without a parent stores it. */
async function stored(level: number): Promise<StoredRam> {
  const path = join(root, 'memory');
  await writeFile(path, content);
  const memory = await open(path);
  try {
    const form = new RamForm('a.ram', { parent: null, level });
    const regions = [{ address: 0n, length: content.length, fileOffset: 0 }];
    const options = { fd: memory.fd, regions, file: join(directory, 'a.ram'), niceness: 0 };
    const saved = await saveRam({ ...options, storing: form.storing(directory) });
    return await form.describe(directory, content.length, saved);
  } finally {
    await memory.close();
  }
}

describe('the image of RAM', () => {
  it('is the stored file itself where RAM is stored in full', async () => {
    const ram = await stored(0);
    expect(ram).toMatchObject({ form: 'full', places: null, layers: [] });
    expect(await ramFileOf(store, directory, ram, signal)).toBe(join(directory, 'a.ram'));
    expect(await findImageDamage(store, directory, ram, signal)).toBeNull();
  });

  it('is made once for all who ask for it at the same time', async () => {
    const ram = await stored(1);
    expect(ram).toMatchObject({ form: 'layered', layers: [{ number: 1, snapshot: null, file: 'a.ram' }] });
    const paths = await Promise.all([1, 2, 3].map(() => ramFileOf(store, directory, ram, signal)));
    expect(new Set(paths).size).toBe(1);
    const { ino } = await stat(paths[0]!);
    expect((await readFile(paths[0]!)).equals(content)).toBe(true);
    expect((await stat(await ramFileOf(store, directory, ram, signal))).ino).toBe(ino);
  });

  it('is made by the next who asks if the first one gives up', async () => {
    const ram = await stored(1);
    const first = new AbortController();
    const given = ramFileOf(store, directory, ram, first.signal);
    const second = ramFileOf(store, directory, ram, signal);
    first.abort(new Error('enough'));
    await given.catch(() => undefined);
    expect((await readFile(await second)).equals(content)).toBe(true);
  });

  it('is made again where it has changed since, and an earlier boot left another', async () => {
    const ram = await stored(1);
    await mkdir(join(directory, 'rebuilt.earlier'));
    const path = await ramFileOf(store, directory, ram, signal);
    expect(await readdir(directory)).not.toContain('rebuilt.earlier');
    await removeStaleImages(directory);
    expect((await readFile(path)).equals(content)).toBe(true);
    const image = await open(path, 'r+');
    await image.write(Buffer.from('changed'), 0, 7, 2_000_000);
    await image.close();
    expect(await findImageDamage(store, directory, ram, signal)).toBeNull();
    expect((await readFile(path)).equals(content)).toBe(true);
  });

  it('is not made from a damaged file, and says so', async () => {
    const ram = await stored(1);
    const pages = await open(join(directory, 'a.ram'), 'r+');
    await pages.write(Buffer.alloc(16), 0, 16, 1000);
    await pages.close();
    const attempt = ramFileOf(store, directory, ram, signal);
    await expect(attempt).rejects.toMatchObject({ code: 'snapshot-damaged' });
    expect(await findStoredDamage(store, directory, ram, signal)).toMatch(/checksums that were sealed/);
    expect(await findImageDamage(store, directory, ram, signal)).toMatch(/first at byte 0/);
  });
});
