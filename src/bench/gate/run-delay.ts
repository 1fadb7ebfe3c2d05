import { readFileSync } from 'node:fs';

/**
 * For how long a process's main thread has been ready to run without a processor, in all: the second figure of
 * Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat". Of ovs-vswitchd it is the thread that moves frames
 * between devices.
 */
export function runDelayNs(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')[1]);
}
