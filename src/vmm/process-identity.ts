import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

/** One process for good: a number is given again, but not with the same start. */
export interface ProcessIdentity {
  readonly pid: number;
  /** In clock ticks after boot. */
  readonly startTicks: bigint;
}

export interface ProcessStat {
  readonly command: string;
  /** One letter: R, S, D, T (stopped), t (traced), Z … */
  readonly state: string;
  readonly startTicks: bigint;
  /** Of processors, in clock ticks, with that of children that it has waited for. */
  readonly takenTicks: number;
  /** Where the environment that it was started with begins in its memory. */
  readonly environmentAddress: bigint;
}

/** proc_pid_stat(5): the command's name, field 2, is in parentheses and may hold anything. */
export function parseProcessStat(text: string): ProcessStat {
  const [begin, end] = [text.indexOf('('), text.lastIndexOf(')')];
  const fields = text.slice(end + 2).split(' ');
  const field = (number: number) => fields[number - 3]!;
  return {
    command: text.slice(begin + 1, end),
    state: field(3),
    startTicks: BigInt(field(22)),
    takenTicks: [14, 15, 16, 17].reduce((sum, number) => sum + Number(field(number)), 0),
    environmentAddress: BigInt(field(50)),
  };
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
