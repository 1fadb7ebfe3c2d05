import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { emptyOverlay, maxBackingPathBytes } from './qcow2.ts';

interface ImageInfo {
  readonly 'virtual-size': number;
  readonly 'backing-filename': string;
  readonly 'backing-filename-format': string;
}

describe('an empty overlay', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'staghorn-qcow2-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const sizes = [512, 1 << 20, 512 << 20, (512 << 20) + 512, 5 * 2 ** 40];
  it.each(sizes)('of %i bytes is an image that QEMU finds no fault with', (virtualBytes) => {
    const [base, path] = [join(folder, 'base, of raw.img'), join(folder, 'overlay')];
    writeFileSync(base, '');
    truncateSync(base, virtualBytes);
    const { head, fileBytes } = emptyOverlay(virtualBytes, { path: base, format: 'raw' });
    writeFileSync(path, head);
    truncateSync(path, fileBytes);
    execFileSync('qemu-img', ['check', '-q', '-f', 'qcow2', path]);
    const info = JSON.parse(
      execFileSync('qemu-img', ['info', '--output=json', path], { encoding: 'utf8' }),
    ) as ImageInfo;
    expect(info).toMatchObject({
      'virtual-size': virtualBytes,
      'backing-filename': base,
      'backing-filename-format': 'raw',
    });
  });

  it('takes what its guest writes and shows the rest of what is below', () => {
    const [base, path] = [join(folder, 'base'), join(folder, 'overlay')];
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', base, '64M']);
    execFileSync('qemu-io', ['-f', 'qcow2', '-c', 'write -q -P 1 0 1M', base]);
    const { head, fileBytes } = emptyOverlay(64 << 20, { path: base, format: 'qcow2' });
    writeFileSync(path, head);
    truncateSync(path, fileBytes);
    const io = (command: string) => execFileSync('qemu-io', ['-f', 'qcow2', '-c', command, path]);
    io('write -q -P 2 64k 64k');
    for (const check of ['read -P 1 0 64k', 'read -P 2 64k 64k', 'read -P 1 128k 896k'])
      expect(io(check).toString()).not.toContain('failed');
    execFileSync('qemu-img', ['check', '-q', '-f', 'qcow2', path]);
  });

  it('is refused for a path that a header has no room for', () => {
    const path = `/${'x'.repeat(maxBackingPathBytes)}`;
    expect(() => emptyOverlay(1 << 20, { path, format: 'raw' })).toThrow(RangeError);
  });
});
