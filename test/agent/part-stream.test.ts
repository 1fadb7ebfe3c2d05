import { appendFile, mkdtemp, readdir, readFile, rm, stat, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { receivePart, sendPart } from '../../src/agent/parts/part-stream.ts';
import { tarEnd, tarHeader, tarPadding } from '../../src/archive/tar.ts';
import { compressZstd } from '../../src/native/zstd-stream.ts';
import { allocatedBytes, SnapshotStore } from '../../src/store/snapshot-directory.ts';
import { sampleId, sealSamplePart } from './sample-part.ts';

let root: string;
let source: SnapshotStore;
let target: SnapshotStore;
let manifestSha256: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'staghorn-part-'));
  source = new SnapshotStore(join(root, 'source'));
  target = new SnapshotStore(join(root, 'target'));
  manifestSha256 = await sealSamplePart(source);
});
afterEach(() => rm(root, { recursive: true }));

async function send(): Promise<Buffer> {
  const output = new PassThrough();
  const whole = buffer(output);
  await sendPart(source, { snapshot: sampleId, manifestSha256, prefix: '', isLast: true }, output);
  output.end();
  return whole;
}

const receive = (bytes: Buffer, as: 'own' | 'copy' = 'copy') =>
  receivePart(target, { snapshot: sampleId, manifestSha256, as }, Readable.from([bytes]));

/** An archive whose entries are given by hand. */
async function archiveOf(entries: readonly (readonly [string, Buffer])[]): Promise<Buffer> {
  const tar = entries.flatMap(([name, data]) => [
    tarHeader({ name, bytes: data.length }),
    data,
    tarPadding(data.length),
  ]);
  return buffer(compressZstd(Readable.from([...tar, tarEnd]), 1));
}

async function partEntries(): Promise<[string, Buffer][]> {
  const names = ['manifest.json', 'a.ram', 'a.state', 'frames.bin'];
  return Promise.all(
    names.map(async (name): Promise<[string, Buffer]> => [
      name,
      await readFile(join(source.pathOf(sampleId), name)),
    ]),
  );
}

describe('a part that is sent', () => {
  it('lies in the other store as it was, holes included, and is found by its checksum', async () => {
    await receive(await send());
    const { manifest, directory } = await target.open(sampleId, manifestSha256);
    expect(manifest.vms).toHaveLength(1);
    expect(directory).toBe(`${target.pathOf(sampleId)}.${manifestSha256.slice(0, 12)}`);
    for (const [name, bytes] of await partEntries())
      expect((await readFile(join(directory, name))).equals(bytes), name).toBe(true);
    expect(await allocatedBytes(directory)).toBe(await allocatedBytes(source.pathOf(sampleId)));
    expect((await stat(directory)).mode & 0o777).toBe(0o700);
    for (const name of await readdir(directory))
      expect((await stat(join(directory, name))).mode & 0o777).toBe(0o600);
  });

  it("stands beside the host's own part of the same snapshot, and goes with it", async () => {
    const own = await sealSamplePart(target);
    await receive(await send());
    expect((await target.open(sampleId, own)).directory).toBe(target.pathOf(sampleId));
    expect((await target.open(sampleId, manifestSha256)).directory).not.toBe(target.pathOf(sampleId));
    await target.remove(sampleId);
    expect(await readdir(target.root)).toEqual([]);
  });

  it('is refused where it is already', async () => {
    const bytes = await send();
    await receive(bytes, 'own');
    await expect(receive(bytes, 'own')).rejects.toMatchObject({ code: 'conflict' });
    expect(await readdir(target.root)).toEqual([sampleId]);
  });

  it('is not sent if its files are not those of its manifest any more', async () => {
    await truncate(join(source.pathOf(sampleId), 'a.ram'), 4096);
    await expect(receive(await send())).rejects.toMatchObject({ code: 'snapshot-damaged' });
    await rm(join(source.pathOf(sampleId), 'a.state'));
    await expect(send()).rejects.toThrow(/a\.state/);
  });
});

describe('what leaves nothing in the store', () => {
  const expectRefusal = async (bytes: Buffer, words: RegExp) => {
    await expect(receive(bytes)).rejects.toMatchObject({
      code: 'snapshot-damaged',
      message: expect.stringMatching(words) as string,
    });
    expect(await readdir(target.root)).toEqual([]);
  };

  it('is a stream that was cut off', async () => {
    const bytes = await send();
    for (const length of [0, 10, 1_000, bytes.length - 1])
      await expectRefusal(bytes.subarray(0, length), /./);
  });

  it('is a file with a bit that was turned', async () => {
    for (const [index, name] of ['a.ram', 'a.state', 'frames.bin'].entries()) {
      const entries = await partEntries();
      const data = entries[index + 1]![1];
      data[Math.floor(data.length / 3)]! ^= 4;
      await expectRefusal(await archiveOf(entries), new RegExp(`${name}.* does not have the checksum`));
    }
  });

  it('is another manifest than the promised one', async () => {
    const [[, manifest], ...rest] = (await partEntries()) as [[string, Buffer], ...[string, Buffer][]];
    const changed = Buffer.from(manifest.toString().replace('"e"', '"x"'));
    await expectRefusal(
      await archiveOf([['manifest.json', changed], ...rest]),
      /manifest does not have the checksum/,
    );
    await expectRefusal(await archiveOf(rest), /should not/);
  });

  it.each(['../outside', '/etc/outside', 'a.ram/../../outside', 'other', 'a.ram', 'needs/x/y'])(
    'is a file called %s that the manifest does not name, or twice',
    async (name) => {
      const entries = await partEntries();
      await expectRefusal(await archiveOf([...entries, [name, Buffer.from('x')]]), /should not, or twice/);
      expect(await readdir(root)).toEqual(['source', 'target']);
    },
  );

  it('is a file that is missing', async () => {
    await expectRefusal(await archiveOf((await partEntries()).slice(0, -1)), /frames\.bin is missing/);
  });

  it('is a file that says it is larger than the manifest does', async () => {
    const entries = (await partEntries()).slice(0, 1);
    const bomb = Buffer.concat([await archiveOfOpen(entries), await endless('a.ram', 1024 ** 4)]);
    await expectRefusal(bomb, /a\.ram is larger than it should be/);
  });
});

async function archiveOfOpen(entries: readonly (readonly [string, Buffer])[]): Promise<Buffer> {
  const tar = entries.flatMap(([name, data]) => [
    tarHeader({ name, bytes: data.length }),
    data,
    tarPadding(data.length),
  ]);
  return buffer(compressZstd(Readable.from(tar), 1));
}

const endless = (name: string, bytes: number) =>
  buffer(compressZstd(Readable.from([tarHeader({ name, bytes }), Buffer.alloc(1024)]), 1));

describe('files of other snapshots', () => {
  const parent = '20261122T110000Z-000001';

  it('come along, and are found when the snapshot they were of is gone', async () => {
    const file = 'b.ram';
    await sealSamplePart(source, { id: parent });
    await appendFile(join(source.pathOf(parent), file), 'of the parent');
    await source.remove(sampleId);
    manifestSha256 = await sealSamplePart(source, { needs: [parent] });
    await source.remove(parent);
    expect(await readdir(source.root)).toEqual([`${parent}.kept`, sampleId].sort());
    expect(await readFile(await source.fileOf(parent, file), 'utf8')).toBe('of the parent');
    await source.remove(sampleId);
    expect(await readdir(source.root)).toEqual([]);
  });
});
