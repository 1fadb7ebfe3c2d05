import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { headerClusterBytes, withBacking } from './qcow2-backing.ts';
import type { BackingImage } from './qcow2.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'staghorn-backing-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

const qemuImg = (...args: string[]) => execFileSync('qemu-img', args, { cwd: folder, encoding: 'utf8' });
const info = () => JSON.parse(qemuImg('info', '--output=json', 'image')) as Record<string, unknown>;

function rebase(backing: BackingImage | null): void {
  const file = openSync(join(folder, 'image'), 'r+');
  try {
    const start = Buffer.alloc(512);
    readSync(file, start, 0, 512, 0);
    const cluster = Buffer.alloc(headerClusterBytes(start));
    readSync(file, cluster, 0, cluster.length, 0);
    writeSync(file, withBacking(cluster, backing), 0, cluster.length, 0);
  } finally {
    closeSync(file);
  }
}

/** A base of ones, and an image with a few bytes of its own beside others of the base. */
function make(options: string[], base: string[] = ['-b', 'base', '-F', 'raw']): string {
  writeFileSync(join(folder, 'base'), Buffer.alloc(1 << 20, 1));
  qemuImg('create', '-q', '-f', 'qcow2', ...options, ...base, 'image', '1M');
  execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 65536 65536', join(folder, 'image')]);
  return contents();
}

function contents(): string {
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', 'image', 'flat');
  return readFileSync(join(folder, 'flat')).toString('latin1');
}

const kinds = [
  { name: 'version 2', options: ['-o', 'compat=0.10'] },
  { name: 'version 3', options: [] },
  { name: 'clusters of 2 KiB', options: ['-o', 'cluster_size=2048'] },
  {
    name: 'zstd, lazy refcounts and extended entries',
    options: ['-o', 'compression_type=zstd,lazy_refcounts=on,extended_l2=on'],
  },
];

describe.each(kinds)('the header of an image with $name', ({ options }) => {
  it('is given another path of what is below, and is an image as good as before', () => {
    const before = make(options);
    const path = join(folder, `moved.${'x'.repeat(200)}`);
    writeFileSync(path, readFileSync(join(folder, 'base')));
    rebase({ path, format: 'raw' });
    expect(info()).toMatchObject({ 'backing-filename': path, 'backing-filename-format': 'raw' });
    qemuImg('check', '-q', 'image');
    expect(contents()).toBe(before);
  });

  it('is given one where it had none, and loses it again', () => {
    const alone = make(options, []);
    const { 'backing-filename': none, ...described } = info();
    expect(none).toBeUndefined();
    rebase({ path: join(folder, 'base'), format: 'raw' });
    expect(info()).toMatchObject({ 'backing-filename': join(folder, 'base') });
    expect(contents()).not.toBe(alone);
    rebase(null);
    qemuImg('check', '-q', 'image');
    expect(info()).toEqual(described);
    expect(contents()).toBe(alone);
  });
});

describe('what is refused', () => {
  it.each([
    ['a path for which its header has no room', ['-o', 'cluster_size=512'], /no room in its header/],
    [
      'an image that keeps its data in another file',
      ['-o', 'data_file=data'],
      /keeps its data in another file/,
    ],
  ])('is %s', (_what, options, words) => {
    qemuImg('create', '-q', '-f', 'qcow2', ...options, 'image', '1M');
    expect(() => rebase({ path: `/${'x'.repeat(600)}`, format: 'raw' })).toThrow(words);
  });

  it('is what is no qcow2 image', () => {
    writeFileSync(join(folder, 'image'), 'QFI');
    truncateSync(join(folder, 'image'), 65_536);
    expect(() => rebase(null)).toThrow(/not a qcow2 image/);
  });
});
