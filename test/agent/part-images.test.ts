import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { receivePart, sendPart } from '../../src/agent/parts/part-stream.ts';
import { TarDecoder, tarEnd, tarHeader, tarPadding } from '../../src/archive/tar.ts';
import { compressZstd, decompressZstd } from '../../src/native/zstd-stream.ts';
import { SnapshotStore } from '../../src/store/snapshot-directory.ts';
import type { StoredImage } from '../../src/store/stored-disks.ts';
import { collectImages, disksOf } from '../../src/vmm/disks/collect.ts';
import { imageName, partialSuffix } from '../../src/vmm/disks/disk-directory.ts';
import { readIdentity } from '../../src/vmm/disks/image-identity.ts';
import { sampleId, sealSamplePart } from './sample-part.ts';

type Entry = [name: string, content: Buffer];

let root: string;
let images: string;
let source: SnapshotStore;
let target: SnapshotStore;
let manifestSha256: string;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'staghorn-images-'));
  images = join(root, 'images');
  source = new SnapshotStore(join(root, 'source'));
  target = new SnapshotStore(join(root, 'target'));
  await mkdir(images);
  await writeFile(join(images, 'base.raw'), randomBytes(4096));
  await truncate(join(images, 'base.raw'), 8 << 20);
  for (const name of ['one', 'two'])
    qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', name);
  const chains = await Promise.all(
    [['one', 'base.raw'], ['two', 'base.raw'], ['base.raw']].map((names) =>
      Promise.all(names.map(describeImage)),
    ),
  );
  const disks = chains.map((chain, index) => {
    return { kind: 'drive' as const, name: `d${index}`, readOnly: false, virtualBytes: 8 << 20, chain };
  });
  manifestSha256 = await sealSamplePart(source, { disks });
});
afterEach(() => rm(root, { recursive: true }));

const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: images, encoding: 'utf8' });

async function describeImage(name: string): Promise<StoredImage> {
  const path = join(images, name);
  const format = name.endsWith('raw') ? 'raw' : 'qcow2';
  return { path, format, unlinked: false, ...(await readIdentity(path)) };
}

async function send(store = source): Promise<Buffer> {
  const output = new PassThrough();
  const whole = buffer(output);
  await sendPart(store, { snapshot: sampleId, manifestSha256, prefix: '', isLast: true }, output);
  output.end();
  return whole;
}

const receive = (
  bytes: Buffer,
  options: { as?: 'own' | 'copy'; withoutImages?: boolean } = {},
  store = target,
) =>
  receivePart(store, { snapshot: sampleId, manifestSha256, as: 'copy', ...options }, Readable.from([bytes]));

async function entriesOf(archive: Buffer): Promise<Entry[]> {
  const decoder = new TarDecoder();
  const entries: Entry[] = [];
  for await (const chunk of decompressZstd(Readable.from([archive])))
    for (const event of decoder.push(chunk)) {
      if (event.kind === 'file') entries.push([event.file.name, Buffer.alloc(event.file.bytes)]);
      if (event.kind !== 'data') continue;
      const [, content] = entries.at(-1)!;
      event.data.copy(content, filled.get(content) ?? 0);
      filled.set(content, (filled.get(content) ?? 0) + event.data.length);
    }
  return entries;
}
const filled = new WeakMap<Buffer, number>();

const archiveOf = (entries: readonly Entry[]): Promise<Buffer> => {
  const packed = entries.flatMap(([name, data]) => [
    tarHeader({ name, bytes: data.length }),
    data,
    tarPadding(data.length),
  ]);
  return buffer(compressZstd(Readable.from([...packed, tarEnd]), 1));
};

const placed = async (store = target) =>
  (await store.open(sampleId, manifestSha256)).manifest.vms[0]!.disks.map(({ chain }) => chain);
const inDisks = (store = target) => readdir(store.pathOf('disks')).catch(() => []);

describe('a part whose VMs have disks', () => {
  it('brings each image once, sparse and for root alone, on what it was on; and they go with the snapshot', async () => {
    const sent = await send();
    await rm(images, { recursive: true });
    await receive(sent);
    const chains = await placed();
    expect(await inDisks()).toHaveLength(3);
    const [[one, base], [two, below], [alone]] = chains as [StoredImage[], StoredImage[], StoredImage[]];
    expect([below, alone]).toEqual([base, base]);
    for (const { path } of [one!, two!]) {
      const info = execFileSync('qemu-img', ['info', '--output=json', path], { encoding: 'utf8' });
      expect(JSON.parse(info)).toMatchObject({
        'backing-filename': base!.path,
        'backing-filename-format': 'raw',
      });
    }
    const { size, blocks, mode } = await stat(base!.path);
    expect([size, mode & 0o777]).toEqual([8 << 20, 0o400]);
    expect(blocks * 512).toBeLessThan(64 * 1024);
    expect(await collectImages(disksOf(target), target)).toEqual([]);
    await target.remove(sampleId);
    expect(await collectImages(disksOf(target), target)).toHaveLength(3);
    expect(await inDisks()).toEqual([]);
  });

  it('can be sent on from where it came to', async () => {
    const base = await readFile(join(images, 'base.raw'));
    const sent = await send();
    await rm(images, { recursive: true });
    await receive(sent);
    const third = new SnapshotStore(join(root, 'third'));
    const again = await send(target);
    await rm(target.root, { recursive: true });
    await receive(again, { as: 'own' }, third);
    const [[one], , [alone]] = (await placed(third)) as [StoredImage[], unknown, StoredImage[]];
    expect((await readFile(alone!.path)).equals(base)).toBe(true);
    execFileSync('qemu-img', ['check', '-q', one!.path]);
    expect(one!.path.startsWith(third.root)).toBe(true);
  });

  it('is not sent when an image is not what was sealed, or of a kind that does not travel', async () => {
    await appendFile(join(images, 'two'), 'x');
    await expect(send()).rejects.toMatchObject({
      code: 'snapshot-damaged',
      message: /two has \d+ bytes instead of/,
    });
    qemuImg('create', '-q', '-f', 'vmdk', 'three', '1M');
    const chain = [{ ...(await describeImage('three')), format: 'vmdk' }];
    const disk = { kind: 'drive' as const, name: 'd', readOnly: false, virtualBytes: 1 << 20, chain };
    await source.remove(sampleId);
    manifestSha256 = await sealSamplePart(source, { disks: [disk] });
    await expect(send()).rejects.toMatchObject({
      code: 'snapshot-unfit',
      message: /three has the format vmdk/,
    });
  });

  it('that has no images is taken where they still are, and only if that is said', async () => {
    const bare = (await entriesOf(await send())).filter(([name]) => !name.startsWith('images'));
    await expect(receive(await archiveOf(bare))).rejects.toThrow(/images\.json is missing/);
    await receive(await archiveOf(bare), { withoutImages: true });
    expect((await placed())[2]).toEqual([await describeImage('base.raw')]);
    expect(await inDisks()).toEqual([]);
  });
});

describe('what leaves no image in the store', () => {
  async function expectRefusal(
    entries: readonly Entry[],
    words: RegExp,
    code = 'snapshot-damaged',
  ): Promise<void> {
    const error: unknown = await receive(await archiveOf(entries)).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code });
    expect((error as Error).message).toMatch(words);
    expect(await inDisks()).toEqual([]);
    expect((await readdir(target.root)).filter((name) => name !== 'disks')).toEqual([]);
  }
  /** The entries as they are sent, but one. */
  async function changed(name: string, change: (content: Buffer) => Buffer): Promise<Entry[]> {
    return (await entriesOf(await send())).map(([each, content]) => [
      each,
      each === name ? change(content) : content,
    ]);
  }
  const turnBit = (content: Buffer) => {
    content[content.length >> 1]! ^= 1;
    return content;
  };

  it('is a bit of an image that was turned', async () => {
    for (const name of ['images/0', 'images/1'])
      await expectRefusal(
        await changed(name, turnBit),
        /disk image .*images\/\S+ does not have the checksum/,
      );
  });

  it('is a stream that was cut off in its images', async () => {
    const bytes = await send();
    for (const part of [0.5, 0.9, 0.99]) {
      await expect(receive(bytes.subarray(0, Math.floor(bytes.length * part)))).rejects.toThrow();
      expect(await inDisks()).toEqual([]);
    }
  });

  it('is an image that is missing, comes twice, has another size or no business there', async () => {
    const entries = await entriesOf(await send());
    const without = (name: string) => entries.filter(([each]) => each !== name);
    const [image] = entries.filter(([name]) => name === 'images/0') as [Entry];
    await expectRefusal(without('images/1'), /images\/1 is missing: .*base\.raw/);
    await expectRefusal(without('images.sha256'), /images\.sha256 is missing/);
    await expectRefusal(without('images.json'), /before images\.json/);
    await expectRefusal([...entries, image], /images\/0 twice/);
    for (const name of ['images/3', 'images/../../x', 'images/00', 'images'])
      await expectRefusal([...entries, [name, Buffer.from('x')]], /should not, or twice/);
    await expectRefusal(await changed('images/0', (content) => content.subarray(512)), /bytes instead of/);
  });

  it('is what a receiver that was killed has left', async () => {
    const killed = { pid: process.pid, startTicks: 1n };
    const path = join(target.pathOf('disks'), imageName('a', killed, 'abcdef012345', 'raw'));
    await mkdir(target.pathOf('disks'), { recursive: true });
    await writeFile(`${path}${partialSuffix}`, 'the beginning of an image');
    await writeFile(path, 'an image that no part names', { mode: 0o400 });
    expect(await collectImages(disksOf(target), target)).toHaveLength(2);
    expect(await inDisks()).toEqual([]);
  });

  it('is a list of other images', async () => {
    const rename = (content: Buffer) => Buffer.from(content.toString().replace('base.raw', 'passwd'));
    await expectRefusal(await changed('images.json', rename), /does not have the images of the manifest/);
    await expectRefusal(await changed('images.json', () => Buffer.from('[]')), /not a list of images/);
  });

  it('is more than the store has room for, told before any of it is written', async () => {
    await mkdir(target.root);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=70M', `images-${process.pid}`, target.root]);
    try {
      const grow = (content: Buffer) =>
        Buffer.from(content.toString().replaceAll(/"storedBytes": \d+/g, `"storedBytes": ${8 << 20}`));
      await expectRefusal(
        await changed('images.json', grow),
        /needs \d+ MiB .* has \d+ MiB free/,
        'disk-full',
      );
    } finally {
      execFileSync('umount', [target.root]);
    }
  });
});
