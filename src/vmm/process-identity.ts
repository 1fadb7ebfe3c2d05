import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

/** One process for good: a number is given again, but not with the same start. */
export interface ProcessIdentity {
  readonly pid: number;
  /** In clock ticks after boot. */
  readonly startTicks: bigint;
}

export interface ProcessStat {
  /** One letter: R, S, D, T (stopped), t (traced), Z … */
  readonly state: string;
  readonly startTicks: bigint;
}

/** Fields after the command name, which is in parentheses and may hold anything (proc_pid_stat(5)). */
export function parseProcessStat(text: string): ProcessStat {
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return { state: fields[0]!, startTicks: BigInt(fields[19]!) };
}

/** Where the environment that a process was started with begins in its memory: field 50 of proc_pid_stat(5). */
export function parseEnvironmentAddress(text: string): bigint {
  return BigInt(text.slice(text.lastIndexOf(')') + 2).split(' ')[47]!);
}

/** Null if there is no such process. */
export async function readProcessStat(pid: number): Promise<ProcessStat | null> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  return text === null ? null : parseProcessStat(text);
}

/** Whether it runs: what a killed process leaves for its parent to read (state Z) does nothing any more. */
export async function isRunning({ pid, startTicks }: ProcessIdentity): Promise<boolean> {
  const stat = await readProcessStat(pid);
  return stat !== null && stat.startTicks === startTicks && !'ZX'.includes(stat.state);
}

export function thisProcess(): ProcessIdentity {
  const { startTicks } = parseProcessStat(readFileSync('/proc/self/stat', 'utf8'));
  return { pid: process.pid, startTicks };
}
