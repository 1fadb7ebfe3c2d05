import { describe, expect, it } from 'vitest';

import { formatCommandLine, parseCommandLine } from '../command-line.ts';
import { diskOptions, optionOfDevice } from './drive-options.ts';
import { backingOf } from './restored-disks.ts';
import { withDisks, type DiskReplacement } from './rewrite.ts';

const overlay = { path: '/store/disks/a,b.qcow2', format: 'qcow2' };
const replace = (kind: 'drive' | 'blockdev', name: string): DiskReplacement => ({
  ...{ kind, name, readOnly: false, image: overlay },
});
const rewritten = (args: string[], ...replacements: DiskReplacement[]) =>
  formatCommandLine(withDisks(parseCommandLine(args), replacements));
const namesOf = (args: string[]) => diskOptions(parseCommandLine(args)).map(({ names }) => names[0]);

describe('the disks of a command line', () => {
  it('have the names that QEMU gives them', () => {
    const args = ['-hda', 'a', '-drive', 'file=b,if=virtio', '-drive', 'file=c', '-cdrom', 'd', 'e.img'];
    // The bare image takes the place of -hda, as QEMU would complain of itself.
    expect(namesOf(args)).toEqual(['ide0-hd0', 'virtio0', 'ide0-hd1', 'ide1-cd0', 'ide0-hd0']);
    expect(namesOf(['-M', 'q35', '-hda', 'a', '-hdb', 'b'])).toEqual(['ide0-hd0', 'ide1-hd0']);
    expect(namesOf(['-drive', 'file=a,if=none', '-drive', 'file=b,id=x,if=none'])).toEqual(['none0', 'x']);
  });

  it('are found by the name or the path of their device', () => {
    const found = diskOptions(
      parseCommandLine([
        ...['-blockdev', 'driver=qcow2,node-name=f', '-blockdev', '{"driver":"raw","node-name":"g"}'],
        ...[
          '-device',
          'virtio-net',
          '-device',
          'ide-hd,drive=f',
          '-device',
          '{"driver":"scsi-hd","drive":"g","id":"s"}',
        ],
      ]),
    );
    const anonymous = { device: '', qdev: '/machine/peripheral-anon/device[1]' };
    expect(optionOfDevice(found, anonymous)).toEqual({ kind: 'blockdev', name: 'f' });
    expect(optionOfDevice(found, { device: '', qdev: 's' })).toEqual({ kind: 'blockdev', name: 'g' });
    expect(optionOfDevice(found, { device: '', qdev: '/machine/peripheral/other' })).toBeNull();
    expect(optionOfDevice(found, { device: 'virtio7' })).toBeNull();
  });

  it('keep all that is not the image: bus, place, id, cache', () => {
    const args = [
      '-drive',
      'file.driver=file,file.filename=x,file.locking=off,format=raw,if=virtio,cache=none',
      '-snapshot',
    ];
    expect(rewritten(args, replace('drive', 'virtio0'))).toEqual([
      '-drive',
      'file=/store/disks/a,,b.qcow2,format=qcow2,file.locking=off,if=virtio,cache=none',
    ]);
    expect(rewritten(['-hdb', 'x,y'], replace('drive', 'ide0-hd1'))).toEqual([
      '-drive',
      'file=/store/disks/a,,b.qcow2,format=qcow2,index=1,media=disk',
    ]);
  });

  it('keep the name of a node, and drop the nodes that only it had used', () => {
    const args = [
      ...[
        '-blockdev',
        'driver=file,filename=x,node-name=p,aio=native',
        '-blockdev',
        'driver=file,filename=y,node-name=q',
      ],
      ...[
        '-blockdev',
        'driver=qcow2,node-name=f,file=p,backing=q',
        '-blockdev',
        '{"driver":"raw","node-name":"g","file":"q"}',
      ],
      ...['-device', 'virtio-blk-pci,drive=f', '-device', 'virtio-blk-pci,drive=g'],
    ];
    expect(rewritten(args, replace('blockdev', 'f'))).toEqual([
      ...args.slice(2, 4),
      ...[
        '-blockdev',
        'driver=qcow2,node-name=f,file.driver=file,file.filename=/store/disks/a,,b.qcow2,file.aio=native',
      ],
      ...args.slice(6),
    ]);
  });

  it('come to the same when they are rewritten again', () => {
    const once = rewritten(['-hda', 'x', '-snapshot'], replace('drive', 'ide0-hd0'));
    expect(rewritten(once, replace('drive', 'ide0-hd0'))).toEqual(once);
  });

  it('open an ejected medium as none, and a read-only one by its whole path', () => {
    const args = ['-cdrom', 'cd.iso', '-drive', 'file=ro.img,if=virtio,read-only=on,format=raw'];
    const cd = { kind: 'drive', name: 'ide1-cd0', readOnly: true, image: null } as const;
    const image = { path: '/images/ro.img', format: 'raw' };
    expect(rewritten(args, cd, { kind: 'drive', name: 'virtio0', readOnly: true, image })).toEqual([
      ...['-drive', 'index=2,media=cdrom'],
      ...['-drive', 'file=/images/ro.img,if=virtio,read-only=on,format=raw'],
    ]);
  });
});

describe('what an overlay says of what is below it', () => {
  const image = (path: string, format: string, unlinked: boolean) => ({
    ...{ path, format, unlinked, bytes: 1, mtimeNs: 1n, inode: 1n },
  });

  it('is a path where every header leads on, and else the chain down to where it does', () => {
    const base = image('/base', 'raw', false);
    expect(backingOf([image('/top', 'qcow2', false), base])).toEqual({ path: '/top', format: 'qcow2' });
    const { path } = backingOf([image('/top', 'qcow2', true), image('/mid', 'qcow2', false), base]);
    expect(JSON.parse(path.slice('json:'.length))).toEqual({
      driver: 'qcow2',
      file: { driver: 'file', filename: '/top' },
      backing: { driver: 'qcow2', file: { driver: 'file', filename: '/mid' } },
    });
  });
});
