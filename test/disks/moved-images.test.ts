import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { PassThrough, Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { receivePart, sendPart } from '../../src/agent/parts/part-stream.ts';
import { SnapshotStore } from '../../src/store/snapshot-directory.ts';
import { readOpenFiles } from '../../src/vmm/disks/open-files.ts';
import { eventually } from '../native/qemu.ts';
import { DiskHost, theVm } from './disk-host.ts';

let host: DiskHost;

beforeEach(async () => {
  host = await DiskHost.start();
});
afterEach(() => host.stop(), 60_000);

const raw = ['create', '-q', '-f', 'raw'];
const qcow2 = ['create', '-q', '-f', 'qcow2'];

/** All of it leaves: the VM, its images, the snapshot and every overlay. @returns what a part of it is sent as */
async function takeAway(snapshot: string): Promise<Buffer> {
  const store = new SnapshotStore(host.store);
  const output = new PassThrough();
  const whole = buffer(output);
  const identity = { snapshot, manifestSha256: host.manifests.get(snapshot)! };
  await sendPart(store, { ...identity, prefix: '', isLast: true }, output);
  output.end();
  const sent = await whole;
  await host.kill(theVm);
  // It is where its QEMU was started, which a host must have.
  rmSync(host.images, { recursive: true });
  mkdirSync(host.images);
  rmSync(host.store, { recursive: true });
  return sent;
}

async function bringBack(snapshot: string, sent: Buffer): Promise<void> {
  const identity = { snapshot, manifestSha256: host.manifests.get(snapshot)! };
  await receivePart(new SnapshotStore(host.store), { ...identity, as: 'own' }, Readable.from([sent]));
}

const kinds: { name: string; disks: number; images: string[][]; args: string[] }[] = [
  {
    name: 'on virtio-blk, IDE and SCSI, two on one base, by relative paths',
    disks: 3,
    images: [
      [...raw, 'base.raw', '8M'],
      [...qcow2, '-b', 'base.raw', '-F', 'raw', 'middle.qcow2'],
      [...qcow2, '-b', 'middle.qcow2', '-F', 'qcow2', 'top.qcow2'],
      [...qcow2, '-b', 'base.raw', '-F', 'raw', 'other.qcow2'],
      [...raw, 'c.raw', '8M'],
    ],
    args: [
      ...['-drive', 'file=top.qcow2,if=virtio', '-hda', 'other.qcow2', '-device', 'lsi,id=l'],
      ...['-drive', 'file=c.raw,format=raw,if=none,id=c', '-device', 'scsi-hd,bus=l.0,drive=c'],
    ],
  },
  {
    name: 'in -snapshot mode',
    disks: 2,
    images: [
      [...raw, 'a.raw', '8M'],
      [...qcow2, 'b.qcow2', '8M'],
    ],
    args: ['-snapshot', '-drive', 'file=a.raw,format=raw,if=virtio', '-hda', 'b.qcow2'],
  },
  {
    name: 'of -blockdev, with media that are only read',
    disks: 1,
    images: [
      [...qcow2, 'a.qcow2', '8M'],
      [...raw, 'medium.iso', '8M'],
      [...raw, 'other.iso', '8M'],
    ],
    args: [
      ...['-blockdev', 'driver=qcow2,file.driver=file,file.filename=a.qcow2,node-name=f'],
      ...['-device', 'virtio-blk-pci,drive=f'],
      ...['-blockdev', 'driver=raw,file.driver=file,file.filename=medium.iso,node-name=m,read-only=on'],
      ...['-device', 'ide-cd,drive=m'],
      ...['-drive', 'file.driver=file,file.filename=other.iso,if=ide,media=cdrom,index=3'],
    ],
  },
];

describe('a VM whose disks came from another store', { timeout: 120_000 }, () => {
  for (const { name, disks, images, args } of kinds) {
    it(`${name} finds what it had written, where nothing of the origin is left`, async () => {
      for (const image of images) host.qemuImg(...image);
      await host.launch(theVm, args, disks);
      await host.snapshot(theVm);
      await host.countsOn(theVm);
      const snapshot = await host.snapshot(theVm);
      await eventually(async () => (await host.report(theVm)).count > host.countAtCut(theVm, snapshot) + 3);
      const sent = await takeAway(snapshot);
      await bringBack(snapshot, sent);
      await host.restore(snapshot);
      expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
      // It is a VM like any other from here on.
      const next = await host.snapshot(theVm);
      await host.countsOn(theVm);
      await host.call('removeSnapshot', { snapshot });
      await host.restore(next);
      expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
      expect((await host.call('verify', { snapshot: next, manifestSha256: null })).problems).toEqual([]);
      await host.call('removeSnapshot', { snapshot: next });
      expect(readdirSync(host.store)).toEqual(['disks']);
      const used = (await readOpenFiles(await host.pid(theVm))).map(({ path }) => path);
      expect(host.overlays().filter((path) => !used.includes(path))).toEqual([]);
      expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
      expect(host.warnings).toEqual([]);
    });
  }
});
