import { readFile } from 'node:fs/promises';

import { operate } from '../../demo/operate.ts';
import { OwnServer } from '../../demo/server.ts';
import { labDown, labStatus, labUp, parseLabFile, type Lab } from '../../lab/index.ts';
import { until } from '../../lab/processes.ts';
import { experiment, restoreResult, snapshot } from '../../protocol/resources.ts';
import type { BenchOptions } from '../bench.ts';
import type { RestoreMeasurement, RestoreSize } from './measurement.ts';

const destroyBoundMs = 10_000;

/** Staghorn's, of a VM that was destroyed before: no QEMU waits for it. */
export const coldRestore: RestoreMeasurement = {
  name: 'staghorn restore, cold',
  limitMs: 120,
  async measure(size, options) {
    const lab = await labUp(labFile(size), { signal: options.signal });
    try {
      const server = await OwnServer.start();
      try {
        return await measureIn(lab, server, size, options);
      } finally {
        await server.stop();
      }
    } finally {
      await labDown(lab.name);
    }
  },
};

function labFile({ memoryMiB }: RestoreSize) {
  return parseLabFile(`name: bench-restore-${process.pid}
management: 198.18.119.0/25
hosts: [{ name: h1 }]
vms: [{ name: a, host: h1, memoryMiB: ${memoryMiB} }]
`);
}

async function measureIn(
  lab: Lab,
  { client }: OwnServer,
  { rounds }: RestoreSize,
  { signal }: BenchOptions,
): Promise<number[]> {
  const body: unknown = JSON.parse(await readFile(lab.experimentFile, 'utf8'));
  await client.json('POST', '/v1/experiments', experiment, { body });
  const { id } = await operate(client, `/v1/experiments/${lab.name}/snapshots`, {}, snapshot, signal);
  const path = `/v1/snapshots/${id}/restore`;
  // The first one fills the page cache, as it is for whoever restores what was just saved.
  const results = [await operate(client, path, { replace: true }, restoreResult, signal)];
  for (let round = 0; round < rounds; round++) {
    await destroy(lab, signal);
    results.push(await operate(client, path, {}, restoreResult, signal));
  }
  return results.slice(1).map(({ durationMs }) => durationMs);
}

async function destroy(lab: Lab, signal: AbortSignal): Promise<void> {
  const pids = async () => (await labStatus(lab.name)).vms.flatMap(({ pid }) => (pid === null ? [] : [pid]));
  for (const pid of await pids()) process.kill(pid, 'SIGKILL');
  const gone = await until(async () => (await pids()).length === 0, { timeoutMs: destroyBoundMs, signal });
  if (!gone) throw new Error(`a VM did not end within ${destroyBoundMs} ms`);
}
