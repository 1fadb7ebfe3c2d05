import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { stateTag, vmStateImage } from './vm-state-image.ts';

const run = promisify(execFile);
const hasQemuImg = await run('qemu-img', ['--version']).then(
  () => true,
  () => false,
);

/** What an internal snapshot's tables lead to, read as docs/interop/qcow2.txt tells. */
function stateIn(image: Buffer, length: number): Buffer {
  const at = (offset: number) => Number(image.readBigUInt64BE(offset));
  const clusterBytes = 1 << image.readUInt32BE(20);
  const snapshots = at(64);
  const l1 = at(snapshots);
  const firstByte = clusterBytes * (clusterBytes / 8);
  const bytes = Buffer.alloc(length);
  for (let done = 0; done < length; done += clusterBytes) {
    const cluster = (firstByte + done) / clusterBytes;
    const l2 = at(l1 + Math.floor(cluster / (clusterBytes / 8)) * 8);
    const place = at(l2 + (cluster % (clusterBytes / 8)) * 8);
    image.copy(bytes, done, place, place + Math.min(clusterBytes, length - done));
  }
  return bytes;
}

const stateOf = (length: number) => Buffer.from(Array.from({ length }, (_, index) => (index * 31) % 251));

describe('an image with a device state as its VM state', () => {
  it.each([1, 65_536, 65_537, 300_000])('holds a state of %i bytes, byte for byte', (length) => {
    const state = stateOf(length);
    expect(stateIn(vmStateImage(state), length).equals(state)).toBe(true);
  });

  it('is refused for a state that one table cannot hold', () => {
    const state = { length: 512 * 1024 * 1024 + 1 } as Buffer;
    expect(() => vmStateImage(state)).toThrow(RangeError);
  });

  describe.skipIf(!hasQemuImg)('as qemu-img sees it', () => {
    let directory: string;
    beforeEach(async () => (directory = await mkdtemp(join(tmpdir(), 'staghorn-vm-state-'))));
    afterEach(() => rm(directory, { recursive: true, force: true }));

    it('is sound, and has one snapshot with a VM state of that size', async () => {
      const file = join(directory, 'state.qcow2');
      await writeFile(file, vmStateImage(stateOf(200_000)));
      await run('qemu-img', ['check', '-f', 'qcow2', file]);
      const { stdout } = await run('qemu-img', ['info', '--output=json', file]);
      expect(JSON.parse(stdout)).toMatchObject({
        snapshots: [{ id: '1', name: stateTag, 'vm-state-size': 200_000 }],
      });
    });
  });
});
