import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { manifestVersion, parseManifest, type HostManifest } from './manifest.ts';
import { checkFile, SnapshotStore } from './snapshot-directory.ts';

const id = '20261122T120000Z-abcdef';

describe('a store of snapshots', () => {
  let root: string;
  let store: SnapshotStore;

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'staghorn-store-'));
    store = new SnapshotStore(join(root, 'snapshots'));
  });
  afterEach(() => rm(root, { recursive: true }));

  async function seal(): Promise<string> {
    const partial = await store.create(id);
    const frames = await partial.write('frames.bin', Buffer.from('frames'));
    const manifest: HostManifest = {
      format: 'staghorn-snapshot',
      version: manifestVersion,
      snapshot: id,
      experiment: 'e',
      createdAt: '2026-11-22T12:00:00Z',
      host: { hostname: 'h', kernel: 'k', staghorn: '0' },
      vms: [],
      frames: { ...frames, count: 0 },
      switches: null,
      needs: [],
    };
    return (await partial.seal(manifest)).manifestSha256;
  }

  it('has a snapshot only once it is sealed, and then as it was written', async () => {
    await store.create(id);
    await expect(store.readManifest(id, null)).rejects.toMatchObject({ code: 'not-found' });
    const sha256 = await seal();
    expect(await store.readManifest(id, sha256)).toMatchObject({ snapshot: id, experiment: 'e' });
    expect(await readdir(join(root, 'snapshots'))).toEqual([id]);
  });

  it('lets nobody but its owner read it', async () => {
    await seal();
    expect((await stat(store.pathOf(id))).mode & 0o777).toBe(0o700);
    expect((await stat(join(store.pathOf(id), 'manifest.json'))).mode & 0o777).toBe(0o600);
  });

  it('leaves nothing of a snapshot that is discarded or removed', async () => {
    await (await store.create(id)).discard();
    expect(await readdir(join(root, 'snapshots'))).toEqual([]);
    await seal();
    await store.remove(id);
    expect(await readdir(join(root, 'snapshots'))).toEqual([]);
  });

  it('finds a manifest that is not the one that was sealed', async () => {
    const sha256 = await seal();
    const path = join(store.pathOf(id), 'manifest.json');
    await writeFile(path, (await readFile(path, 'utf8')).replace('"e"', '"x"'));
    await expect(store.readManifest(id, sha256)).rejects.toMatchObject({ code: 'snapshot-damaged' });
  });

  it('refuses a format version that it does not know, naming both', async () => {
    await seal();
    const text = await readFile(join(store.pathOf(id), 'manifest.json'), 'utf8');
    const newer = text.replace(`"version": ${manifestVersion}`, '"version": 99');
    expect(() => parseManifest(newer, 'm')).toThrow(/version 99.*reads versions 1 and 2/);
    expect(() => parseManifest('{', 'm')).toThrow(/not JSON/);
    expect(() => parseManifest('{}', 'm')).toThrow(/not a manifest/);
  });

  it('still reads a manifest of version 1, which has nothing of the switches', async () => {
    await seal();
    const text = await readFile(join(store.pathOf(id), 'manifest.json'), 'utf8');
    const { switches: _, ...older } = JSON.parse(text) as Record<string, unknown>;
    const manifest = parseManifest(JSON.stringify({ ...older, version: 1 }), 'm');
    expect(manifest).toMatchObject({ version: 1, snapshot: id, switches: null });
    expect(() => parseManifest(JSON.stringify(older), 'm')).toThrow(/not a manifest/);
  });

  it('says how a file differs from its entry', async () => {
    const partial = await store.create(id);
    const entry = await partial.write('a', Buffer.from('content'));
    expect(await checkFile(partial.path, entry)).toBeNull();
    await writeFile(join(partial.path, 'a'), 'contenT');
    expect(await checkFile(partial.path, entry)).toMatch(/checksum/);
    await writeFile(join(partial.path, 'a'), 'cont');
    expect(await checkFile(partial.path, entry)).toMatch(/4 bytes instead of 7/);
    await rm(join(partial.path, 'a'));
    expect(await checkFile(partial.path, entry)).toMatch(/cannot be read/);
  });
});
