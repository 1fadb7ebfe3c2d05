import { randomFillSync } from 'node:crypto';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { writeMemory } from '../../native/ram.ts';
import { QmpClient } from '../../qmp/index.ts';
import { ControlledVm } from '../../vmm/controlled-vm.ts';
import { readQemuProcess, type QemuProcess } from '../../vmm/qemu-process.ts';

const exe = '/usr/bin/qemu-system-x86_64';
const mebibyte = 1024 * 1024;
/** What the firmware lives in. */
const spared = 16 * mebibyte;
const startPollMs = 20;

/** A QEMU without a guest's kernel, whose firmware waits for a disk: what its RAM holds is written from outside. */
export class BenchVm {
  readonly directory: string;
  readonly process: QemuProcess;
  readonly #child: ChildProcess;

  private constructor(directory: string, process: QemuProcess, child: ChildProcess) {
    this.directory = directory;
    this.process = process;
    this.#child = child;
  }

  static async start(memoryMiB: number, signal: AbortSignal): Promise<BenchVm> {
    const directory = await mkdtemp(join(tmpdir(), 'staghorn-bench-save-'));
    const socket = join(directory, 'qmp');
    const child = spawn(
      exe,
      [
        ...['-name', 'bench', '-M', 'pc', '-m', String(memoryMiB), '-display', 'none', '-nodefaults'],
        ...['-qmp', `unix:${socket},server=on,wait=off`],
      ],
      { stdio: 'ignore' },
    );
    try {
      return new BenchVm(directory, await whenItAnswers(child, socket, signal), child);
    } catch (error) {
      await end(child, directory);
      throw error;
    }
  }

  /** Takes control of it for one save, as a barrier does; to be closed. */
  control(): Promise<ControlledVm> {
    return ControlledVm.open(this.process, { links: [], switchPorts: new Map() });
  }

  /** Writes noise into a part of its RAM, from the beginning on. */
  async dirty(fraction: number): Promise<void> {
    const controlled = await this.control();
    try {
      const { address, length } = controlled.layout.main;
      writeNoise({ pid: this.process.pid, address, length }, fraction);
    } finally {
      await controlled.close();
    }
  }

  async stop(): Promise<void> {
    await end(this.#child, this.directory);
  }
}

export function writeNoise(
  { pid, address, length }: { pid: number; address: bigint; length: number },
  fraction: number,
): void {
  const noise = Buffer.alloc(8 * mebibyte);
  const endBytes = Math.round(length * fraction);
  for (let at = spared; at < endBytes; at += noise.length) {
    randomFillSync(noise);
    const bytes = noise.subarray(0, Math.min(noise.length, endBytes - at));
    writeMemory({ pid, address: address + BigInt(at), bytes });
  }
}

async function whenItAnswers(child: ChildProcess, socket: string, signal: AbortSignal): Promise<QemuProcess> {
  for (;;) {
    signal.throwIfAborted();
    if (child.exitCode !== null) throw new Error(`${exe} ended with exit code ${child.exitCode}`);
    const qmp = await QmpClient.connect({ path: socket, timeoutMs: 5_000, signal }).catch(() => null);
    await qmp?.close();
    const process = await readQemuProcess(child.pid!);
    if (qmp !== null && process !== null) return process;
    await delay(startPollMs, undefined, { signal });
  }
}

async function end(child: ChildProcess, directory: string): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  await rm(directory, { recursive: true, force: true });
}
