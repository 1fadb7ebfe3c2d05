import { operate } from '../../demo/operate.ts';
import { labStatus, type Lab } from '../../lab/index.ts';
import { until } from '../../lab/processes.ts';
import { restoreResult } from '../../protocol/resources.ts';
import type { BenchOptions } from '../bench.ts';
import type { RestoreMeasurement, RestoreSize } from './measurement.ts';
import { withRestoreLab, type RestoreLab } from './restore-lab.ts';

const destroyBoundMs = 10_000;

/** Staghorn's, of a VM that was destroyed before: no QEMU waits for it. */
export const coldRestore: RestoreMeasurement = {
  name: 'staghorn restore, cold',
  limitMs: 120,
  measure: (size, options) => withRestoreLab(size, options, (lab) => measureIn(lab, size, options)),
};

async function measureIn(
  { lab, client, snapshot }: RestoreLab,
  { rounds }: RestoreSize,
  { signal }: BenchOptions,
): Promise<number[]> {
  const path = `/v1/snapshots/${snapshot}/restore`;
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
