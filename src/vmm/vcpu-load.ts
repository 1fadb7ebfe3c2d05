import { readFileSync } from 'node:fs';

import type { QmpClient } from '../qmp/index.ts';

/** The threads of a VM's vCPUs, of its process. */
export async function readVcpuThreads(qmp: QmpClient): Promise<number[]> {
  return (await qmp.execute('query-cpus-fast')).map((cpu) => cpu['thread-id']);
}

/** For how long threads have run, and have waited for a processor. Those that are gone count as nothing. */
export const wantedNs = (pid: number, threads: readonly number[]): bigint =>
  sumOf(pid, threads, ({ ran, waited }) => ran + waited);

/** For how long they have run. */
export const ranNs = (pid: number, threads: readonly number[]): bigint =>
  sumOf(pid, threads, ({ ran }) => ran);

interface Times {
  readonly ran: bigint;
  readonly waited: bigint;
}

function sumOf(pid: number, threads: readonly number[], part: (times: Times) => bigint): bigint {
  return threads.reduce((sum, thread) => sum + part(timesOf(pid, thread)), 0n);
}

/** Documentation/scheduler/sched-stats.rst in the kernel's sources. */
function timesOf(pid: number, thread: number): Times {
  try {
    const [ran = '0', waited = '0'] = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(
      ' ',
    );
    return { ran: BigInt(ran), waited: BigInt(waited) };
  } catch {
    return { ran: 0n, waited: 0n };
  }
}
