import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { setImmediate as turn } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { forkMemory, probeTrace, release } from '../../src/native/fork.ts';
import type { ForkedMemory, MemoryRegion } from '../../src/native/fork.ts';
import { locateCodeBuffer, parseSmaps } from '../../src/native/process-memory.ts';
import { writeMemory } from '../../src/native/ram.ts';
import { forkObstacle } from '../../src/vmm/save/fork.ts';
import { childrenOf, eventually, processesMentioning, readMemory, TestQemu } from './qemu.ts';
import { Tracee } from './tracee.ts';

const timeoutMs = 5000;
const patternOffset = 32n << 20n;
const disposals: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const dispose of disposals.splice(0).reverse()) await dispose();
});

async function startQemu(...args: string[]): Promise<TestQemu> {
  const qemu = await TestQemu.startCounting(['-m', '64', ...args]);
  disposals.push(() => qemu.stop());
  return qemu;
}

async function fork(pid: number, regions: readonly MemoryRegion[]): Promise<ForkedMemory> {
  const forked = await forkMemory({ pid, regions, timeoutMs });
  disposals.push(() => release(forked.childPid).catch(() => {}));
  return forked;
}

async function isMarkedDontFork(qemu: TestQemu, region: MemoryRegion): Promise<boolean> {
  const mapping = (await qemu.smaps()).find((one) => one.address === region.address);
  return mapping?.length === region.length && mapping.flags.has('dc');
}

describe('forking the memory of a QEMU', () => {
  test('gives the RAM as it was at the fork of a stopped VM, whatever the guest does afterwards', async () => {
    const qemu = await startQemu();
    const ram = await qemu.block('pc.ram');
    const pattern = Buffer.alloc(1 << 20, 'as it was ');
    writeMemory({ pid: qemu.pid, address: ram.address + patternOffset, bytes: pattern });
    await qemu.qmp.execute('stop');
    const before = await readMemory(qemu.pid, ram.address, ram.length);
    const { childPid } = await fork(qemu.pid, [ram]);
    await qemu.qmp.execute('cont');
    await qemu.countsOn();
    writeMemory({
      pid: qemu.pid,
      address: ram.address + patternOffset,
      bytes: Buffer.alloc(1 << 20, 'changed '),
    });

    const image = await readMemory(childPid, ram.address, ram.length);
    expect(image.equals(before)).toBe(true);
    expect(image.subarray(Number(patternOffset)).subarray(0, pattern.length).equals(pattern)).toBe(true);
    expect((await readMemory(qemu.pid, ram.address, ram.length)).equals(before)).toBe(false);
  });

  test('of a running VM lets it run on, and the image stands still', async () => {
    const qemu = await startQemu();
    const ram = await qemu.block('pc.ram');
    const { childPid } = await fork(qemu.pid, [ram]);
    const first = await readMemory(childPid, ram.address, 1 << 20);
    await qemu.countsOn();
    expect((await readMemory(childPid, ram.address, 1 << 20)).equals(first)).toBe(true);
    expect(await qemu.status()).toBe('running');
  });

  test('leaves no child, no zombie and no trace after 100 times', async () => {
    const qemu = await startQemu();
    const ram = await qemu.block('pc.ram');
    const images: number[] = [];
    for (let i = 0; i < 100; i++) {
      const { childPid } = await forkMemory({ pid: qemu.pid, regions: [ram], timeoutMs });
      images.push(childPid);
      await release(childPid);
      expect(await childrenOf(qemu.pid)).toEqual([]);
    }
    expect(await qemu.status()).toBe('running');
    await qemu.countsOn();
    expect(await isMarkedDontFork(qemu, ram)).toBe(true);
    expect(await processesMentioning(qemu.directory)).toEqual([qemu.pid]);
    await eventually(async () => images.every((pid) => !existsSync(`/proc/${pid}`)));
    const own = (await readdir('/proc/self/task')).length;
    expect(own).toBeLessThan(40);
  });

  test('keeps two images of different instants at once', async () => {
    const qemu = await startQemu();
    const ram = await qemu.block('pc.ram');
    const address = ram.address + patternOffset;
    writeMemory({ pid: qemu.pid, address, bytes: Buffer.from('one') });
    const one = await fork(qemu.pid, [ram]);
    writeMemory({ pid: qemu.pid, address, bytes: Buffer.from('two') });
    const two = await fork(qemu.pid, [ram]);
    expect((await readMemory(one.childPid, address, 3)).toString()).toBe('one');
    expect((await readMemory(two.childPid, address, 3)).toString()).toBe('two');
  });

  test('forks several blocks, and the image holds no descriptor', async () => {
    const qemu = await startQemu();
    const blocks = [await qemu.block('pc.ram'), await qemu.block('0000:00:02.0/vga.vram')];
    const { childPid } = await fork(qemu.pid, blocks);
    for (const block of blocks) await readMemory(childPid, block.address, block.length);
    expect(await readdir(`/proc/${childPid}/fd`)).toEqual([]);
    expect((await readdir(`/proc/${qemu.pid}/fd`)).length).toBeGreaterThan(5);
  });

  test('copies nothing of what TCG has translated, nor of anything else that is left out', async () => {
    const qemu = await startQemu();
    const ram = await qemu.block('pc.ram');
    const code = locateCodeBuffer(await qemu.smaps())!;
    const forked = await forkMemory({ pid: qemu.pid, regions: [ram], leftOut: [code], timeoutMs });
    disposals.push(() => release(forked.childPid));
    const image = parseSmaps(await readFile(`/proc/${forked.childPid}/smaps`, 'utf8'));
    expect(image.filter(({ permissions }) => permissions === 'rwxp')).toEqual([]);
    expect(image.find(({ address }) => address === ram.address)).toMatchObject({ length: ram.length });
    // So it stays: the next fork has nothing to leave out.
    expect(locateCodeBuffer(await qemu.smaps())).toBeNull();
    expect(await qemu.block('pc.ram')).toEqual(ram);
    await qemu.countsOn();
  });

  test("works under libvirt's seccomp sandbox, which would kill a QEMU that forks", async () => {
    const qemu = await startQemu(
      '-sandbox',
      'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    );
    expect(await readFile(`/proc/${qemu.pid}/status`, 'utf8')).toMatch(/^Seccomp:\t2$/m);
    const ram = await qemu.block('pc.ram');
    for (let i = 0; i < 10; i++) await release((await fork(qemu.pid, [ram])).childPid);
    await qemu.countsOn();
  });

  test('works on a QEMU that is held by SIGSTOP, and leaves it held', async () => {
    const qemu = await startQemu();
    const ram = await qemu.block('pc.ram');
    const state = async () => /^State:\t(.)/m.exec(await readFile(`/proc/${qemu.pid}/status`, 'utf8'))?.[1];
    qemu.process.kill('SIGSTOP');
    await eventually(async () => (await state()) === 'T');
    await fork(qemu.pid, [ram]);
    await eventually(async () => (await state()) === 'T');
    qemu.process.kill('SIGCONT');
    await qemu.countsOn();
  });
});

describe('a process whose memory is forked', () => {
  test('loses no signal, repeats none, and keeps its registers', async () => {
    const { tracee, region } = await Tracee.start('spin');
    disposals.push(() => tracee.stop());
    const firstRealtimeSignal = 34;
    let sent = 0;
    let forking = true;
    const sending = (async () => {
      for (; forking && sent < 5000; await turn()) {
        process.kill(tracee.pid, firstRealtimeSignal);
        sent++;
      }
    })();
    for (let i = 0; i < 50; i++) await release((await fork(tracee.pid, [region])).childPid);
    forking = false;
    await sending;
    const report = await tracee.report();
    expect(report).toMatchObject({ failures: 0, signals: sent });
    expect(report.rounds).toBeGreaterThan(0);
  });

  test('is not interrupted in a system call that sleeps', async () => {
    const { tracee, region } = await Tracee.start('sleep');
    disposals.push(() => tracee.stop());
    for (let i = 0; i < 50; i++) await release((await fork(tracee.pid, [region])).childPid);
    expect(await tracee.report()).toMatchObject({ failures: 0 });
  });
});

describe('a fork that cannot be', () => {
  test('of a process that is already traced, is refused as busy', async () => {
    const { tracee, region } = await Tracee.start('sleep');
    disposals.push(() => tracee.stop());
    const { childPid } = await fork(tracee.pid, [region]);
    // The image itself is a traced process.
    await expect(forkMemory({ pid: childPid, regions: [], timeoutMs })).rejects.toMatchObject({
      code: 'EBUSY',
    });
    expect(probeTrace(childPid)).toMatch(/already traced/);
  });

  test('of a process that does not exist, is refused', async () => {
    const noPid = 2 ** 22 - 1;
    await expect(forkMemory({ pid: noPid, regions: [], timeoutMs })).rejects.toMatchObject({ code: 'ESRCH' });
    expect(probeTrace(noPid)).toMatch(/ENOENT/);
    await expect(release(noPid)).rejects.toMatchObject({ code: 'ESRCH' });
  });

  test('of shared memory, is refused', async () => {
    const qemu = await startQemu(
      '-object',
      'memory-backend-memfd,id=ram,size=64M,share=on',
      '-machine',
      'memory-backend=ram',
    );
    const ram = await qemu.block('ram');
    expect(ram.private).toBe(false);
    expect(forkObstacle(qemu.pid, { main: ram, backends: [], others: [], codeBuffer: null })).toMatch(
      /shared/,
    );
    await expect(forkMemory({ pid: qemu.pid, regions: [ram], timeoutMs })).rejects.toMatchObject({
      code: 'EINVAL',
    });
  });

  test('fails in the midst and leaves the process as it was', async () => {
    const qemu = await startQemu();
    const ram = await qemu.block('pc.ram');
    // The kernel takes madvise for whole pages only: the second region fails when the first is already changed.
    const crooked = { address: ram.address + 1n, length: 4096 };
    await expect(forkMemory({ pid: qemu.pid, regions: [ram, crooked], timeoutMs })).rejects.toMatchObject({
      code: 'EINVAL',
      message: expect.stringContaining('madvise') as string,
    });
    expect(await isMarkedDontFork(qemu, ram)).toBe(true);
    expect(await childrenOf(qemu.pid)).toEqual([]);
    await qemu.countsOn();
    await release((await fork(qemu.pid, [ram])).childPid);
  });

  test('probes as possible where it is', async () => {
    const qemu = await startQemu();
    const main = await qemu.block('pc.ram');
    expect(forkObstacle(qemu.pid, { main, backends: [], others: [], codeBuffer: null })).toBeNull();
    const huge = { ...main, hugePages: true };
    expect(forkObstacle(qemu.pid, { main: huge, backends: [], others: [], codeBuffer: null })).toMatch(
      /hugetlbfs/,
    );
  });
});
