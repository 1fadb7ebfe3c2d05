import { readdirSync } from 'node:fs';
import { readFile, readlink } from 'node:fs/promises';
import { basename } from 'node:path';

import {
  all,
  formatCommandLine,
  parseCommandLine,
  parseParameters,
  qmpSocketPaths,
  vmName,
  type CommandOption,
} from './command-line.ts';
import { targetOf } from './open-descriptors.ts';
import { parseProcessStat } from './process-identity.ts';

/** A running QEMU, as /proc tells of it (proc(5)). */
export interface QemuProcess {
  readonly pid: number;
  /** In clock ticks after boot: with the pid it names one process for good. */
  readonly startTicks: bigint;
  readonly name: string;
  readonly exe: string;
  readonly options: readonly CommandOption[];
  readonly qmpSockets: readonly string[];
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
}

/** Every VM of this PID namespace, by pid. A QEMU without a machine is none: it was started to be asked what it can do. */
export async function findQemuProcesses(): Promise<QemuProcess[]> {
  const pids = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  const found = await Promise.all(
    pids.filter((pid) => exeOf(pid) !== null).map((pid) => readQemuProcess(pid)),
  );
  const vms = found.flatMap((process) => (process !== null && hasMachine(process.options) ? [process] : []));
  return withoutForks(vms).sort((a, b) => a.pid - b.pid);
}

/** The QEMU with this pid; null if there is none, or if it is something else. */
export async function readQemuProcess(pid: number): Promise<QemuProcess | null> {
  const exe = exeOf(pid);
  if (exe === null) return null;
  try {
    const [cmdline, stat, status, cwd] = await Promise.all([
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile(`/proc/${pid}/status`, 'utf8'),
      readlink(`/proc/${pid}/cwd`),
    ]);
    const args = cmdline.split('\0').slice(1, -1);
    const options = parseCommandLine(args);
    const { state, startTicks } = parseProcessStat(stat);
    if (state === 'Z') return null;
    return {
      pid,
      startTicks,
      name: vmName(options) ?? `qemu-${pid}`,
      exe,
      options,
      qmpSockets: qmpSocketPaths(options),
      cwd,
      uid: idOf(status, 'Uid'),
      gid: idOf(status, 'Gid'),
    };
  } catch {
    // It ended while it was looked at, or it is not ours to read.
    return null;
  }
}

const hasMachine = (options: readonly CommandOption[]) =>
  !all(options, 'machine').some((value) => parseParameters(value, 'type').get('type') === 'none');

/** Synchronous, since it is asked of every process of the host; null of whatever is no QEMU. */
function exeOf(pid: number): string | null {
  const exe = targetOf(`/proc/${pid}/exe`)?.replace(/ \(deleted\)$/, '') ?? '';
  return /^qemu-(system-|kvm)/.test(basename(exe)) ? exe : null;
}

export async function isStillRunning(process: { pid: number; startTicks: bigint }): Promise<boolean> {
  const now = await readQemuProcess(process.pid);
  return now !== null && now.startTicks === process.startTicks;
}

/** The effective id: the second of real, effective, saved, file system. */
function idOf(status: string, key: 'Uid' | 'Gid'): number {
  return Number(new RegExp(`^${key}:\\s+\\d+\\s+(\\d+)`, 'm').exec(status)?.[1]);
}

/** A fork that holds RAM for a snapshot has its VM's command line: the VM is the one that started first. */
function withoutForks(processes: readonly QemuProcess[]): QemuProcess[] {
  const key = (process: QemuProcess) => JSON.stringify([process.exe, formatCommandLine(process.options)]);
  const first = new Map<string, QemuProcess>();
  for (const process of processes) {
    const other = first.get(key(process));
    if (other === undefined || startedBefore(process, other)) first.set(key(process), process);
  }
  return processes.filter(
    (process) => process.qmpSockets.length === 0 || first.get(key(process)) === process,
  );
}

const startedBefore = (a: QemuProcess, b: QemuProcess) =>
  a.startTicks < b.startTicks || (a.startTicks === b.startTicks && a.pid < b.pid);
