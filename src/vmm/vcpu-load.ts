import { readFileSync } from 'node:fs';

import type { QmpClient } from '../qmp/index.ts';

/** The threads of a VM's vCPUs, of its process. */
export async function readVcpuThreads(qmp: QmpClient): Promise<number[]> {
  return (await qmp.execute('query-cpus-fast')).map((cpu) => cpu['thread-id']);
}

/**
 * For how long threads have run, and have waited for a processor (Documentation/scheduler/sched-stats.rst in the
 * kernel's sources). Those that are gone count as nothing.
 */
export function wantedNs(pid: number, threads: readonly number[]): bigint {
  return threads.reduce((sum, thread) => sum + wantedBy(pid, thread), 0n);
}

function wantedBy(pid: number, thread: number): bigint {
  try {
    const [run = '0', wait = '0'] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ');
    return BigInt(run) + BigInt(wait);
  } catch {
    return 0n;
  }
}
