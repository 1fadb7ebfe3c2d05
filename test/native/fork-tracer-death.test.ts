import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import { forkMemory, prepareFork, release } from '../../src/native/fork.ts';
import type { MemoryRegion } from '../../src/native/fork.ts';
import { writeMemory } from '../../src/native/ram.ts';
import { childrenOf, eventually, processesMentioning, TestQemu } from './qemu.ts';
import { Tracee } from './tracee.ts';

const loop = fileURLToPath(new URL('./fork-loop.mjs', import.meta.url));
const deaths = 10;
const hits = 25;
const attemptsMax = 500;
const longestSpinMs = 2;
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

function tracerOf(pid: number): number {
  return Number(/^TracerPid:\t(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
}

function isHeldByTracer(pid: number): boolean {
  return /^State:\tt/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

/**
 * Forks and kills the tracer at some instant at which it is attached. True if that was in the midst: the fork failed.
 * Busy, since the tracer is attached for a millisecond only.
 */
async function killTracerOnce(pid: number, region: MemoryRegion): Promise<boolean> {
  const prepared = await prepareFork({ pid, regions: [region], timeoutMs: 5000 });
  const forking = prepared
    .fork()
    .then(
      () => false,
      (error: unknown) => {
        expect(error).toMatchObject({ code: 'ESRCH', message: expect.stringContaining('tracer') as string });
        return true;
      },
    )
    .finally(() => prepared.release());
  const deadlineMs = performance.now() + 1000;
  while (!isHeldByTracer(pid) && performance.now() < deadlineMs) continue;
  const tracer = tracerOf(pid);
  const killMs = performance.now() + Math.random() * longestSpinMs;
  while (performance.now() < killMs) continue;
  if (tracer !== 0 && tracerOf(pid) === tracer) process.kill(tracer, 'SIGKILL');
  return forking;
}

async function killTracerInTheMidst(
  pid: number,
  region: MemoryRegion,
  check: () => Promise<void>,
): Promise<number> {
  let met = 0;
  for (let i = 0; i < attemptsMax && met < hits; i++) {
    if (!(await killTracerOnce(pid, region))) continue;
    met++;
    await check();
  }
  return met;
}

describe('when the tracer alone is killed in the midst of its work', () => {
  test('QEMU goes on, and nothing of the fork remains', { timeout: 120_000 }, async () => {
    const qemu = await TestQemu.startCounting(['-m', '256']);
    disposals.push(() => qemu.stop());
    const ram = await qemu.block('pc.ram');
    writeMemory({
      pid: qemu.pid,
      address: ram.address + (16n << 20n),
      bytes: Buffer.alloc(128 << 20, 'dirty'),
    });
    const met = await killTracerInTheMidst(qemu.pid, ram, async () => {
      await qemu.countsOn();
      expect(tracerOf(qemu.pid)).toBe(0);
      await eventually(async () => (await childrenOf(qemu.pid)).length === 0);
      await eventually(async () => (await processesMentioning(qemu.directory)).length === 1);
      const mapping = (await qemu.smaps()).find((one) => one.address === ram.address);
      expect(mapping?.flags.has('dc')).toBe(true);
    });
    expect(met).toBe(hits);
    expect(await qemu.status()).toBe('running');
  });

  test('a computing process finds its way back with all registers', { timeout: 120_000 }, async () => {
    const { tracee, region } = await Tracee.start('spin');
    disposals.push(() => tracee.stop());
    expect(await killTracerInTheMidst(tracee.pid, region, async () => {})).toBe(hits);
    expect(await tracee.report()).toMatchObject({ failures: 0 });
  });
});

describe('when the process of the tracer is killed at any instant', () => {
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
});
