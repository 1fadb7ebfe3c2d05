import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { keeperByCopy } from '../../src/vmm/save/shared.ts';
import { SavedVm } from './saved-vm.ts';

const run = promisify(execFile);
const mkfs = [process.env['MKFS_XFS'], '/sbin/mkfs.xfs', '/usr/sbin/mkfs.xfs'].find(
  (path) => path !== undefined && existsSync(path),
);

describe.skipIf(mkfs === undefined)('RAM in a shared file on XFS (needs mkfs.xfs of xfsprogs)', () => {
  let directory: string;
  let mount: string;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'staghorn-reflink-'));
    mount = join(directory, 'mnt');
    await run('mkdir', [mount]);
    await run('truncate', ['-s', '1G', join(directory, 'image')]);
    await run(mkfs!, ['-q', '-m', 'reflink=1', join(directory, 'image')]);
    await run('mount', ['-o', 'loop', join(directory, 'image'), mount]);
  });

  afterAll(async () => {
    await run('umount', [mount]);
    await rm(directory, { recursive: true, force: true });
  });

  test('is cloned, and the VM comes back as it was', async () => {
    const backend = `memory-backend-file,id=ram,size=64M,share=on,mem-path=${join(mount, 'guest.ram')}`;
    const vm = await SavedVm.start(['-m', '64', '-object', backend, '-machine', 'memory-backend=ram'], {
      parent: mount,
    });
    try {
      await vm.fill('as it was ');
      const { then, count, parts } = await vm.save('shared', async () => vm.fill('changed '));
      await vm.restore(parts);
      expect((await vm.contents())[0]!.equals(then[0]!)).toBe(true);
      expect(await vm.counter()).toBe(count);
    } finally {
      await vm.close();
    }
  });

  test('has its clone on the same file system, without a name', async () => {
    const backend = `memory-backend-file,id=ram,size=64M,share=on,mem-path=${join(mount, 'guest.ram')}`;
    const vm = await SavedVm.start(['-m', '64', '-object', backend, '-machine', 'memory-backend=ram'], {
      parent: mount,
    });
    try {
      const { qmp, layout, process } = vm.vm;
      const target = { pid: process.pid, qmp, layout, directory: mount, maxBytesPerSecond: 0 };
      const keeper = await keeperByCopy(target);
      await qmp.execute('stop');
      await keeper.keep();
      const { stdout } = await run('sh', ['-c', `readlink /proc/${globalThis.process.pid}/fd/*`]).catch(
        (error: { stdout: string }) => error,
      );
      expect(stdout).toContain(`${mount}/.clone-ram (deleted)`);
      await keeper.close();
    } finally {
      await vm.close();
    }
  });
});
