import { readFileSync } from 'node:fs';

/** For how long threads have run, and have been ready to run without a processor, nanoseconds, in all. */
export interface ThreadTimes {
  readonly ranNs: bigint;
  readonly waitedNs: bigint;
}

/**
 * The sum over threads of a process; those that are gone count as nothing. Source: /proc/PID/schedstat in
 * Documentation/scheduler/sched-stats.rst of the kernel.
 */
export function threadTimesOf(pid: number, threads: readonly number[]): ThreadTimes {
  let [ranNs, waitedNs] = [0n, 0n];
  for (const thread of threads) {
    const [ran, waited] = readSchedstat(pid, thread);
    ranNs += BigInt(ran!);
    waitedNs += BigInt(waited!);
  }
  return { ranNs, waitedNs };
}

function readSchedstat(pid: number, thread: number): string[] {
  try {
    return readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ');
  } catch {
    return ['0', '0'];
  }
}
