import { describe, expect, it } from 'vitest';

import type { StoredVm } from '../store/manifest.ts';
import { parseCommandLine } from './command-line.ts';
import { launchArguments, type LaunchSpec } from './launch.ts';
import type { QemuProcess } from './qemu-process.ts';
import { isWhatWouldBeStarted } from './reset-fit.ts';

const args = [
  ...['-M', 'pc', '-m', '128', '-name', 'a', '-qmp', 'unix:/run/a.qmp,server=on,wait=off'],
  ...['-netdev', 'tap,id=n0,ifname=a0,script=no', '-device', 'virtio-net-pci,netdev=n0'],
];
const spec = (changes: Partial<LaunchSpec> = {}): LaunchSpec => ({
  name: 'a',
  exe: '/usr/bin/qemu-system-x86_64',
  args,
  cwd: '/',
  uid: 0,
  gid: 0,
  qmpSocket: '/run/a.qmp',
  machineType: 'pc-i440fx-7.2',
  ramFile: '/var/lib/staghorn/snapshots/1/a.ram',
  ramBytes: 128 * 1024 * 1024,
  backends: [],
  logFile: '/run/staghorn/a.qemu.log',
  ...changes,
});
/** What a restore with this specification has started. */
const runningAs = (started: LaunchSpec): QemuProcess => ({
  pid: 1,
  startTicks: 1n,
  name: 'a',
  exe: started.exe,
  options: parseCommandLine(launchArguments(started)),
  qmpSockets: ['/run/a.qmp'],
  cwd: '/',
  uid: started.uid,
  gid: started.gid,
});
const stored = { running: true, disks: [], memory: [] } as unknown as StoredVm;

describe('a QEMU that runs, and one that a restore would start', () => {
  it('are the same if a restore of the same snapshot has started it', () => {
    expect(isWhatWouldBeStarted(runningAs(spec()), stored, spec())).toBe(true);
  });

  it('are the same if it became another user by itself', () => {
    const asUser = spec({ uid: 64055, gid: 106 });
    expect(isWhatWouldBeStarted(runningAs(asUser), stored, asUser)).toBe(true);
  });

  const loader = [...args, '-device', 'loader,file=/tmp/x,addr=0x1000'];
  it.each([
    ['maps the RAM of another snapshot', spec({ ramFile: '/var/lib/staghorn/snapshots/2/a.ram' }), spec()],
    ['was booted', null, spec()],
    ['has other arguments', spec({ args: [...args, '-no-reboot'] }), spec()],
    ['is another binary', spec({ exe: '/opt/qemu/qemu-system-x86_64' }), spec()],
    ['runs as another user', spec({ uid: 64055, gid: 106 }), spec()],
    ['writes files into RAM at each reset', spec({ args: loader }), spec({ args: loader })],
  ])('are not the same if it %s', (_, started, wanted) => {
    const process =
      started === null ? { ...runningAs(spec()), options: parseCommandLine(args) } : runningAs(started);
    expect(isWhatWouldBeStarted(process, stored, wanted)).toBe(false);
  });

  it.each([
    ['was paused by its owner', { running: false }],
    ['has disks', { disks: [{}] }],
    ['has further memory objects', { memory: [{}] }],
  ])('are not the same for a VM that %s', (_, changes) => {
    const other = { ...stored, ...changes } as unknown as StoredVm;
    expect(isWhatWouldBeStarted(runningAs(spec()), other, spec())).toBe(false);
  });
});
