import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { forkMemory, release } from '../../src/native/fork.ts';
import type { MemoryRegion } from '../../src/native/fork.ts';
import { childrenOf, eventually, processesMentioning, TestQemu } from './qemu.ts';
import { Tracee } from './tracee.ts';

const loop = fileURLToPath(new URL('./fork-loop.mjs', import.meta.url));
const deaths = 25;
const longestLifeMs = 40;
const disposals: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const dispose of disposals.splice(0).reverse()) await dispose();
});

/** Lets another process fork again and again, and kills it at some instant. Resolves when it is dead. */
async function forkUntilKilled(pid: number, region: MemoryRegion): Promise<void> {
  const child = spawn(process.execPath, [loop, `${pid}`, `${region.address}`, `${region.length}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  await once(child.stdout, 'data');
  // Any instant will do: the point is to meet the tracer in each of its steps.
  await delay(Math.random() * longestLifeMs);
  child.kill('SIGKILL');
  const [, signal] = (await exited) as [number | null, string | null];
  expect(signal).toBe('SIGKILL');
}

describe('when the tracer is killed at any instant', () => {
  test('QEMU goes on, and nothing of the fork remains', { timeout: 120_000 }, async () => {
    const qemu = await TestQemu.startCounting(['-m', '256']);
    disposals.push(() => qemu.stop());
    const ram = await qemu.block('pc.ram');
    for (let i = 0; i < deaths; i++) {
      await forkUntilKilled(qemu.pid, ram);
      expect(await qemu.status()).toBe('running');
      await qemu.countsOn();
      await eventually(async () => (await processesMentioning(qemu.directory)).length === 1);
      await eventually(async () => (await qemu.block('pc.ram')).address === ram.address);
    }
    const { childPid } = await forkMemory({ pid: qemu.pid, regions: [ram], timeoutMs: 5000 });
    await release(childPid);
    expect(await childrenOf(qemu.pid)).toEqual([]);
    const mapping = (await qemu.smaps()).find((one) => one.address === ram.address);
    expect(mapping?.flags.has('dc')).toBe(true);
  });

  test('a computing process finds its way back with all registers', { timeout: 120_000 }, async () => {
    const { tracee, region } = await Tracee.start('spin');
    disposals.push(() => tracee.stop());
    for (let i = 0; i < deaths; i++) await forkUntilKilled(tracee.pid, region);
    expect(await tracee.report()).toMatchObject({ failures: 0 });
  });
});
