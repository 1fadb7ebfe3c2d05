import { readFileSync } from 'node:fs';
import { readFile, readdir, readlink, stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

/** A process, told apart from a later one that got the same number (proc(5), /proc/PID/stat field 22). */
export interface ProcessId {
  readonly pid: number;
  readonly startTicks: string;
}

function startTicksIn(stat: string): string | undefined {
  // The command's name is in parentheses and may hold anything; the fields after it begin with number 3.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}

/** Nothing if there is no such process, or only what is left of it. */
export async function identify(pid: number): Promise<ProcessId | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  const startTicks = startTicksIn(text);
  return startTicks === undefined ? undefined : { pid, startTicks };
}

export function thisProcess(): ProcessId {
  const startTicks = startTicksIn(readFileSync('/proc/self/stat', 'utf8'));
  if (startTicks === undefined) throw new Error('/proc/self/stat is not as proc(5) says');
  return { pid: process.pid, startTicks };
}

export async function isAlive(id: ProcessId): Promise<boolean> {
  return (await identify(id.pid))?.startTicks === id.startTicks;
}

/** Every process that is in the network namespace bound at `path`, or that came from there. */
export async function processesIn(path: string): Promise<number[]> {
  const wanted = (await stat(path)).ino;
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const inside = await Promise.all(
    pids.map(async (pid) => (await readlink(`/proc/${pid}/ns/net`).catch(() => '')) === `net:[${wanted}]`),
  );
  return pids.filter((_, index) => inside[index]).map(Number);
}

export function kill(pid: number, signal: NodeJS.Signals = 'SIGKILL'): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error;
  }
}

/** Polls until the condition holds; false if it did not within the time. */
export async function until(
  condition: () => Promise<boolean>,
  { timeoutMs, signal, everyMs = 20 }: { timeoutMs: number; signal?: AbortSignal; everyMs?: number },
): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > end) return false;
    await delay(everyMs, undefined, { signal });
  }
  return true;
}
