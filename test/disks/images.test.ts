import { execFileSync } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { newSnapshotId } from '../../src/protocol/names.ts';
import { SnapshotStore } from '../../src/store/snapshot-directory.ts';
import { longestChain } from '../../src/vmm/disks/shorten.ts';
import { eventually } from '../native/qemu.ts';
import { DiskHost, theVm } from './disk-host.ts';

let host: DiskHost;

beforeEach(async () => {
  host = await DiskHost.start();
});
afterEach(async () => {
  await host.stop();
}, 60_000);

const newIds = () => [randomUUID(), newSnapshotId(new Date(), randomUUID().slice(0, 6))] as const;
const sha256 = (path: string) => createHash('sha256').update(readFileSync(path)).digest('hex');

async function launch(vm = theVm): Promise<void> {
  host.qemuImg('create', '-q', '-f', 'qcow2', `${vm}.qcow2`, '8M');
  await host.launch(vm, ['-drive', `file=${vm}.qcow2,if=virtio,id=main`], 1);
}

/** Every image that the VM's disk is read through, from the top. */
async function chainOf(vm: string): Promise<string[]> {
  return host.qmp(vm, async (qmp) => {
    const [disk] = (await qmp.execute('query-block')).filter(({ device }) => device === 'main');
    const names: string[] = [];
    for (let image = disk?.inserted?.image; image !== undefined; image = image['backing-image'])
      names.push(image.filename);
    return names;
  });
}

async function ownNodes(vm: string): Promise<string[]> {
  const nodes = await host.qmp(vm, (qmp) => qmp.execute('query-named-block-nodes', { flat: true }));
  return nodes.map((node) => node['node-name']).filter((name) => name.startsWith('staghorn-'));
}

describe('images that a snapshot names', { timeout: 90_000 }, () => {
  it('stay bit for bit as they are, whatever the VM and restores of it write', async () => {
    await launch();
    const snapshots = [await host.snapshot(theVm), await host.snapshot(theVm)];
    const store = new SnapshotStore(host.store);
    const named = new Set<string>();
    for (const snapshot of snapshots)
      for (const { disks } of (await store.readManifest(snapshot, null)).vms)
        for (const { path } of disks.flatMap(({ chain }) => chain)) named.add(path);
    expect(named.size).toBe(3); // the floppy, the VM's own image, the overlay of the first snapshot
    const sums = [...named].map(sha256);
    await host.countsOn(theVm);
    await host.restore(snapshots[1]!);
    await host.countsOn(theVm);
    await host.restore(snapshots[0]!);
    await host.countsOn(theVm);
    expect([...named].map(sha256)).toEqual(sums);
  });

  it('are refused for a restore when they were written to, and the VM runs on', async () => {
    await launch();
    const snapshot = await host.snapshot(theVm);
    appendFileSync(host.image(`${theVm}.qcow2`), Buffer.alloc(512));
    truncateSync(host.image(`${theVm}.qcow2`), readFileSync(host.image(`${theVm}.qcow2`)).length - 512);
    const pid = await host.pid(theVm);
    await expect(host.restore(snapshot)).rejects.toMatchObject({
      code: 'snapshot-damaged',
      message: expect.stringMatching(/vm-\d+\.qcow2 was written to after the snapshot/) as string,
    });
    expect(await host.pid(theVm)).toBe(pid);
    const { problems } = await host.call('verify', { snapshot, manifestSha256: null });
    expect(problems).toEqual([expect.stringContaining('was written to')]);
  });

  it('and overlays go when nothing needs them any more', async () => {
    await launch();
    const snapshot = await host.snapshot(theVm);
    const other = await host.snapshot(theVm);
    for (let i = 0; i < 3; i++) {
      await host.restore(snapshot);
      // The layer that the other snapshot names, and what the VM writes to now.
      expect(host.overlays()).toHaveLength(2);
    }
    await host.call('removeSnapshot', { snapshot: other });
    expect(host.overlays()).toHaveLength(1);
    await host.call('removeSnapshot', { snapshot });
    expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
  });

  it('are in chains that do not grow beyond a bound', async () => {
    await launch();
    const snapshots: string[] = [];
    for (let i = 0; i < longestChain; i++) snapshots.push(await host.snapshot(theVm));
    await eventually(async () => (await chainOf(theVm)).length <= longestChain / 2, 20_000);
    expect(await ownNodes(theVm)).toHaveLength(longestChain / 2 - 1);
    expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
    await host.restore(snapshots.at(-2)!);
    expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
    expect(host.warnings).toEqual([]);
  });
});

describe("a chain of the VM's own that is long already", { timeout: 90_000 }, () => {
  it('is kept as it is: layers above it are shortened down to it, and restores find all of it', async () => {
    host.qemuImg('create', '-q', '-f', 'raw', 'own0', '8M');
    // Each names the one below by a path that is relative to itself; QEMU knows the topmost by one to its directory.
    for (let i = 1; i < longestChain - 2; i++) {
      const format = i === 1 ? 'raw' : 'qcow2';
      host.qemuImg('create', '-q', '-f', 'qcow2', '-b', `own${i - 1}`, '-F', format, `own${i}`);
    }
    const own = longestChain - 2;
    await host.launch(theVm, ['-drive', `file=own${own - 1},if=virtio,id=main`], 1);
    const sums = Array.from({ length: own - 1 }, (_, i) => sha256(host.image(`own${i}`)));
    for (let i = 0; i < 2; i++) await host.snapshot(theVm);
    expect(await chainOf(theVm)).toHaveLength(longestChain);
    const long = await host.snapshot(theVm);
    await eventually(async () => (await chainOf(theVm)).length === own + 1, 20_000);
    expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
    const short = await host.snapshot(theVm);
    for (const snapshot of [short, long]) {
      await host.countsOn(theVm);
      await host.restore(snapshot);
      expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
    }
    expect(sums).toEqual(Array.from({ length: own - 1 }, (_, i) => sha256(host.image(`own${i}`))));
    expect(host.warnings).toEqual([]);
  });
});

describe('a snapshot that is given up', { timeout: 90_000 }, () => {
  it('before the cut leaves the VM on its image and nothing else', async () => {
    await launch();
    const [barrier, snapshot] = newIds();
    await host.arm([theVm], barrier, snapshot);
    expect(host.overlays()).toHaveLength(1);
    await host.call('abort', { barrier, reason: 'a test' });
    expect(host.overlays()).toEqual([]);
    expect(await ownNodes(theVm)).toEqual([]);
    expect(await chainOf(theVm)).toEqual([`${theVm}.qcow2`]);
  });

  it('after the cut leaves the VM on a chain that holds all it wrote', async () => {
    await launch();
    const [barrier, snapshot] = newIds();
    await host.arm([theVm], barrier, snapshot);
    await host.cut(barrier);
    await host.call('abort', { barrier, reason: 'a test' });
    expect(await chainOf(theVm)).toHaveLength(2);
    expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
    const next = await host.snapshot(theVm);
    await host.restore(next);
    expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
  });

  for (const step of ['arm', 'cut'] as const) {
    it(`by a killed agent after "${step}" leaves a VM that runs, and no more than it needs`, async () => {
      await launch();
      await host.startAgent();
      const [barrier, snapshot] = newIds();
      await host.arm([theVm], barrier, snapshot);
      if (step === 'cut') await host.cut(barrier);
      await host.killAgent();
      expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
      expect(await ownNodes(theVm)).toHaveLength(step === 'arm' ? 0 : 1);
      expect(host.overlays()).toHaveLength(step === 'arm' ? 0 : 1);
      const next = await host.snapshot(theVm);
      await host.restore(next);
      expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
    });
  }

  it('because the store is full ends alone, says so, and the VM goes on', async () => {
    mkdirSync(host.store);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256M', `disks-${process.pid}`, host.store]);
    const mounted = host.store;
    // Before the host's directory is removed.
    host.atEnd(() => execFileSync('umount', [mounted]));
    await launch();
    const [barrier, snapshot] = newIds();
    await host.arm([theVm], barrier, snapshot);
    await host.cut(barrier);
    const ballast = join(host.store, `${snapshot}.partial`, 'ballast');
    const { bfree, bsize } = statfsSync(host.store);
    writeFileSync(ballast, Buffer.alloc(bfree * bsize));
    await host.resume(barrier, [theVm]);
    await eventually(async () => host.lost.length > 0);
    expect(host.lost[0]).toMatch(/VM vm-\d+: disk main: write failed: No space left on device/);
    // With the snapshot its files go, and the VM finds room again.
    expect(await host.countsOn(theVm)).toMatchObject({ strangeDisks: 0, failedCalls: 0 });
    rmSync(ballast, { force: true });
  });
});

describe('a VM whose disks cannot be kept', { timeout: 60_000 }, () => {
  it('says for each of them why', async () => {
    copyFileSync('/usr/share/seabios/bios-256k.bin', host.image('flash.raw'));
    for (const name of [theVm, 'plugged']) host.qemuImg('create', '-q', '-f', 'qcow2', `${name}.qcow2`, '8M');
    host.qemuImg('create', '-q', '-f', 'qcow2', '-o', 'data_file=data.raw', 'split.qcow2', '8M');
    await host.launch(
      theVm,
      [
        ...['-drive', 'if=pflash,format=raw,file=flash.raw', '-drive', 'file=split.qcow2,if=virtio'],
        ...[
          '-object',
          'throttle-group,id=slow',
          '-blockdev',
          `driver=qcow2,node-name=f,file.driver=file,file.filename=${theVm}.qcow2`,
        ],
        ...[
          '-blockdev',
          'driver=throttle,throttle-group=slow,node-name=t,file=f',
          '-device',
          'virtio-blk-pci,drive=t,id=limited',
        ],
      ],
      2,
    );
    await host.qmp(theVm, async (qmp) => {
      const file = { driver: 'file', filename: host.image('plugged.qcow2') };
      await qmp.execute('blockdev-add', { driver: 'qcow2', 'node-name': 'late', file });
      await qmp.execute('device_add', { driver: 'virtio-blk-pci', drive: 'late', id: 'plugged' });
    });
    const { vms } = await host.call('discover', { vms: [theVm] });
    expect(vms[0]?.obstacles).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/limited.* is behind a block driver \(throttle\)/),
        expect.stringMatching(/plugged.* is not on the command line of QEMU/),
        expect.stringMatching(/^disk pflash0: it is a flash memory/),
        expect.stringMatching(/^disk virtio0: image split.qcow2 keeps its data in another file/),
      ]),
    );
  });
});
