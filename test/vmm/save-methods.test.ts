import { chmod } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';

import type { SaveMethod } from '../../src/protocol/vm.ts';
import type { TestQemu } from '../native/qemu.ts';
import { SavedVm } from './saved-vm.ts';

const sharedRam = '-object memory-backend-memfd,id=ram,size=96M,share=on -machine memory-backend=ram'.split(
  ' ',
);
const ioThread = [
  ...'-object iothread,id=io0 -blockdev driver=null-co,node-name=n0,size=1048576'.split(' '),
  ...['-device', 'virtio-blk-pci,drive=n0,iothread=io0'],
];
const plain = ['-m', '96'];
const cases: [SaveMethod, string, string[]][] = [
  ['fork', 'private RAM', plain],
  ['background', 'private RAM', plain],
  ['background', 'shared RAM', [...plain, ...sharedRam]],
  ['background', 'private RAM and an I/O thread', [...plain, ...ioThread]],
  ['precopy', 'private RAM', plain],
  ['precopy', 'shared RAM', [...plain, ...sharedRam]],
  ['shared', 'shared RAM', [...plain, ...sharedRam]],
  ['stop-copy', 'private RAM', plain],
];
const open: SavedVm[] = [];

afterEach(async () => {
  for (const vm of open.splice(0)) await vm.close();
});

async function start(...given: Parameters<typeof SavedVm.start>): Promise<SavedVm> {
  const vm = await SavedVm.start(...given);
  open.push(vm);
  return vm;
}

/** Saves the VM, changes it, and restores it; it must be as it was, and go on from there. */
async function comesBack(vm: SavedVm, method: SaveMethod): Promise<void> {
  await vm.fill('as it was ');
  await vm.countsOn();
  const { then, count, parts } = await vm.save(method, async () => {
    await vm.fill('changed ');
    await vm.countsOn();
  });
  await vm.restore(parts);
  const now = await vm.contents();
  expect(now.map((content, index) => content.equals(then[index]!))).toEqual(then.map(() => true));
  expect(await vm.counter()).toBe(count);
  await vm.vm.qmp.execute('cont');
  await vm.countsOn();
}

describe('a VM that was saved and killed', () => {
  test.each(cases)('comes back as it was: method %s, %s', async (method, _, args) => {
    const vm = await start(args);
    expect(vm.vm.vm.methods[method]).toBeNull();
    await comesBack(vm, method);
    // A restored VM can be saved again: its RAM is a private mapping of what is stored.
    await comesBack(vm, 'fork');
  });
});

describe('a VM that its owner has paused', () => {
  test('is not saved by method background, after which QEMU would run it', async () => {
    const vm = await start(plain, { prepare: ({ qmp }) => qmp.execute('stop') });
    expect(vm.vm.vm.methods).toMatchObject({
      fork: null,
      background: expect.stringMatching(/is paused/) as string,
    });
  });
});

describe('a VM that is kept by method background', () => {
  test('stands still until it is let go, and then runs', async () => {
    const vm = await start(plain);
    expect(await vm.letGo('background')).toEqual({ resumedBefore: false, resumedAfter: true });
    await vm.countsOn();
  });
});

describe('a snapshot that is given up', () => {
  test.each(cases)('leaves the VM running and fit for the next: method %s, %s', async (method, _, args) => {
    const vm = await start(args);
    const before = await vm.vm.qmp.execute('query-migrate-capabilities');
    for (const when of ['armed', 'kept', 'kept'] as const) {
      await vm.giveUp(method, when);
      expect(await vm.vm.isRunning()).toBe(true);
      await vm.countsOn();
    }
    expect(await vm.vm.qmp.execute('query-migrate-capabilities')).toEqual(before);
    await comesBack(vm, method);
  });
});

describe('RAM in several objects', () => {
  const numa = [
    ...'-m 64,slots=2,maxmem=1G -object memory-backend-ram,id=n0,size=32M'.split(' '),
    ...'-object memory-backend-memfd,id=n1,size=32M,share=off -numa node,memdev=n0 -numa node,memdev=n1'.split(
      ' ',
    ),
  ];
  const plugDimm = async ({ qmp }: TestQemu) => {
    await qmp.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'hot', size: 128 << 20 });
    await qmp.execute('device_add', { driver: 'pc-dimm', id: 'dimm0', memdev: 'hot' });
  };

  test.each<SaveMethod>(['fork', 'background', 'precopy', 'stop-copy'])(
    'comes back, two NUMA nodes and a DIMM that was plugged in, by method %s',
    async (method) => {
      const vm = await start(numa, { prepare: plugDimm });
      const { main, backends } = vm.vm.layout;
      expect(main.name).toBe('n0');
      expect(backends.map(({ id, device }) => ({ id, device }))).toEqual(
        expect.arrayContaining([
          { id: 'n1', device: null },
          { id: 'hot', device: expect.stringContaining('pc-dimm,id=dimm0,memdev=hot,addr=') as string },
        ]),
      );
      await comesBack(vm, method);
      // Now the DIMM is in the command line.
      expect(vm.vm.layout.backends.map(({ device }) => device)).toEqual([null, null]);
      await comesBack(vm, 'fork');
    },
  );

  test('plugged into a VM with one block of its own, beyond 4 GiB, comes back', async () => {
    const vm = await start(['-m', '64,slots=2,maxmem=16G'], { prepare: plugDimm });
    expect(vm.vm.layout.main.name).toBe('pc.ram');
    await comesBack(vm, 'fork');
  });

  test('is refused where another process would lose it', async () => {
    const backend = 'memory-backend-memfd,id=shm,size=1M,share=on';
    const vm = await start(['-m', '64', '-object', backend, '-device', 'ivshmem-plain,memdev=shm']);
    expect(vm.vm.vm.obstacles).toContainEqual(expect.stringContaining('another process shares its RAM'));
  });
});

describe('a QEMU that keeps itself in', () => {
  const uid = 1000;
  // QEMU opens its disks again when it goes on after a load.
  const openToAll = async ({ directory }: TestQemu) => {
    await chmod(directory, 0o755);
    await chmod(join(directory, 'floppy.img'), 0o666);
  };

  test("as another user comes back as that user, though what is stored is root's alone", async () => {
    const vm = await start(['-m', '64', '-runas', `${uid}:${uid}`], { prepare: openToAll });
    expect(vm.vm.process.uid).toBe(uid);
    await comesBack(vm, 'fork');
    expect(vm.vm.process).toMatchObject({ uid, gid: uid });
    await comesBack(vm, 'precopy');
    expect(vm.vm.process).toMatchObject({ uid, gid: uid });
  });

  test.each<SaveMethod>(['fork', 'background', 'precopy'])(
    'by a seccomp filter comes back, by method %s',
    async (method) => {
      const sandbox = 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny';
      const vm = await start(['-m', '64', '-sandbox', sandbox]);
      await comesBack(vm, method);
    },
  );
});
