import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { eventually } from '../native/qemu.ts';
import { DiskHost, theVm } from './disk-host.ts';

let host: DiskHost;

beforeEach(async () => {
  host = await DiskHost.start();
});
afterEach(() => host.stop(), 60_000);

/** Every kind of disk is the same to its guest: what it had written at the cut is there, and nothing later. */
async function expectTrueDisks(vm: string, snapshot: string): Promise<void> {
  // Its disks hold something else now.
  await host.countsOn(vm);
  await eventually(async () => (await host.report(vm)).count !== host.countAtCut(vm, snapshot));
  await host.restore(snapshot);
  expect(await host.countsOn(vm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
}

const raw = ['create', '-q', '-f', 'raw'];
const qcow2 = ['create', '-q', '-f', 'qcow2'];

const kinds: { name: string; disks: number; images: string[][]; args: string[] }[] = [
  {
    name: 'raw on virtio-blk and on IDE',
    disks: 2,
    images: [
      [...raw, 'a.raw', '8M'],
      [...raw, 'b.raw', '8M'],
    ],
    args: ['-drive', 'file=a.raw,format=raw,if=virtio', '-drive', 'file=b.raw,format=raw'],
  },
  {
    name: 'qcow2 on -hda and -hdb',
    disks: 2,
    images: [
      [...qcow2, 'a, comma.qcow2', '8M'],
      [...qcow2, 'b.qcow2', '1G'],
    ],
    args: ['-hda', 'a, comma.qcow2', '-hdb', 'b.qcow2'],
  },
  {
    name: 'on virtio-scsi and on lsi',
    disks: 2,
    images: [
      [...qcow2, 'a.qcow2', '8M'],
      [...raw, 'b.raw', '8M'],
    ],
    args: [
      ...['-drive', 'file=a.qcow2,if=none,id=one,cache=none', '-device', 'virtio-scsi-pci,id=v'],
      ...['-device', 'scsi-hd,bus=v.0,drive=one', '-device', 'lsi,id=l'],
      ...['-drive', 'file=b.raw,format=raw,if=none,id=two', '-device', 'scsi-hd,bus=l.0,drive=two'],
    ],
  },
  {
    name: 'of -blockdev, as text and as JSON',
    disks: 2,
    images: [
      [...qcow2, 'a.qcow2', '8M'],
      [...raw, 'b.raw', '8M'],
    ],
    args: [
      ...['-blockdev', 'driver=file,filename=a.qcow2,node-name=p,cache.direct=on'],
      ...['-blockdev', 'driver=qcow2,file=p,node-name=f', '-device', 'virtio-blk-pci,drive=f'],
      ...['-blockdev', '{"driver":"file","filename":"b.raw","node-name":"g","discard":"unmap"}'],
      ...['-device', '{"driver":"virtio-blk-pci","drive":"g","id":"second"}'],
    ],
  },
  {
    name: 'on a chain whose images name each other by relative paths',
    disks: 1,
    images: [
      [...raw, 'base.raw', '8M'],
      [...qcow2, '-b', 'base.raw', '-F', 'raw', 'middle.qcow2'],
      [...qcow2, '-b', 'middle.qcow2', '-F', 'qcow2', 'top.qcow2'],
    ],
    args: ['-drive', 'file=top.qcow2,if=virtio'],
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
    name: 'with an I/O thread, with snapshot=on for one alone, and with cache=unsafe',
    disks: 3,
    images: [
      [...qcow2, '-o', 'compat=0.10', 'a.qcow2', '8M'],
      [...raw, 'b.raw', '8M'],
      [...qcow2, '-o', 'lazy_refcounts=on,cluster_size=4096', 'c.qcow2', '8M'],
    ],
    args: [
      ...['-object', 'iothread,id=io', '-drive', 'file=a.qcow2,if=none,id=a'],
      ...['-device', 'virtio-blk-pci,drive=a,iothread=io', '-drive', 'file=b.raw,format=raw,snapshot=on'],
      ...['-device', 'lsi,id=l', '-drive', 'file=c.qcow2,if=none,id=c,cache=unsafe'],
      ...['-device', 'scsi-hd,bus=l.0,drive=c'],
    ],
  },
  {
    name: 'on a compressed image that is smaller than what lies on it',
    disks: 1,
    images: [
      [...raw, 'base.raw', '4M'],
      ['convert', '-c', '-O', 'qcow2', 'base.raw', 'base.qcow2'],
      [...qcow2, '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2', '1G'],
    ],
    args: ['-hda', 'top.qcow2'],
  },
];

describe('a VM with disks', { timeout: 120_000 }, () => {
  for (const { name, disks, images, args } of kinds) {
    it(`${name} finds after a restore what it had written, and nothing later`, async () => {
      for (const image of images) host.qemuImg(...image);
      await host.launch(theVm, args, disks);
      const first = await host.snapshot(theVm);
      await host.countsOn(theVm);
      const second = await host.snapshot(theVm);
      await expectTrueDisks(theVm, first);
      const ofRestored = await host.snapshot(theVm);
      await expectTrueDisks(theVm, second);
      await expectTrueDisks(theVm, ofRestored);
      expect(host.warnings).toEqual([]);
    });
  }
});
