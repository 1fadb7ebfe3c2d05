import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

import { QmpClient } from '../../qmp/index.ts';
import type { BenchOptions } from '../bench.ts';
import { guestArguments, guestImage, waitForBoot, withDirectory } from './guest.ts';
import type { RestoreMeasurement, RestoreSize } from './measurement.ts';
import { writeUntouchedRam } from './written-ram.ts';

const commandBoundMs = 120_000;
const connectPollMs = 20;

/** QEMU's own internal snapshots (HMP loadvm, which is QMP's snapshot-load): into the same process, from a qcow2. */
export const snapshotLoad: RestoreMeasurement = {
  name: 'QEMU snapshot-load, in place',
  limitMs: null,
  measure: (size, options) => withDirectory((directory) => measureIn(directory, size, options)),
};

async function measureIn(
  directory: string,
  { memoryMiB, rounds }: RestoreSize,
  { signal }: BenchOptions,
): Promise<number[]> {
  const [disk, socket, serial] = ['disk.qcow2', 'qmp', 'serial'].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  await promisify(execFile)('qemu-img', ['create', '-q', '-f', 'qcow2', disk, '4G']);
  const image = await guestImage(signal);
  const child = spawn(
    'qemu-system-x86_64',
    [
      ...['-M', 'pc,accel=tcg', '-m', String(memoryMiB), '-nodefaults', '-no-user-config'],
      ...['-display', 'none', '-vga', 'none', '-serial', `file:${serial}`],
      ...['-qmp', `unix:${socket},server=on,wait=off`, '-drive', `if=virtio,format=qcow2,file=${disk}`],
      ...['-kernel', image.kernel, '-initrd', image.initrd, '-append', guestArguments],
    ],
    { stdio: 'ignore' },
  );
  const ended = once(child, 'exit');
  try {
    const qmp = await connect(socket, signal);
    await waitForBoot(serial, signal);
    await writeUntouchedRam(child.pid!, memoryMiB);
    await hmp(qmp, 'savevm bench');
    const values: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const startedAtMs = performance.now();
      await hmp(qmp, 'loadvm bench');
      values.push(performance.now() - startedAtMs);
    }
    await qmp.close();
    return values;
  } finally {
    child.kill('SIGKILL');
    await ended;
  }
}

async function hmp(qmp: QmpClient, line: string): Promise<void> {
  const answer = await qmp.execute(
    'human-monitor-command',
    { 'command-line': line },
    { timeoutMs: commandBoundMs },
  );
  if (answer.trim() !== '') throw new Error(`${line}: ${answer.trim()}`);
}

async function connect(path: string, signal: AbortSignal): Promise<QmpClient> {
  for (;;) {
    const qmp = await QmpClient.connect({ path, timeoutMs: commandBoundMs }).catch(() => null);
    if (qmp !== null) return qmp;
    await delay(connectPollMs, undefined, { signal });
  }
}
