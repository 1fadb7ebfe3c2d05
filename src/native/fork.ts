import { readFileSync } from 'node:fs';
import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

export interface MemoryRegion {
  readonly address: bigint;
  readonly length: number;
}

export interface ForkOptions {
  readonly pid: number;
  /** Memory that the child shall have although QEMU has marked it MADV_DONTFORK: the guest's RAM. */
  readonly regions: readonly MemoryRegion[];
  /** Memory that the child shall not have, and no other from then on: it is marked MADV_DONTFORK, and stays so. */
  readonly leftOut?: readonly MemoryRegion[] | undefined;
  /** For how long the main thread may take to stop, and its calls to return. */
  readonly timeoutMs: number;
}

/** A copy-on-write image of a process's memory: a child that never runs, held until it is released. */
export interface ForkedMemory {
  readonly childPid: number;
  /** CLOCK_MONOTONIC just after the fork. With running vCPUs pages are of slightly different instants before it. */
  readonly forkNs: bigint;
  /** For how long the process's main thread was stopped; its other threads ran on. */
  readonly stoppedNs: number;
}

interface ForkAddon {
  /** Settles with the number of the fork. */
  startPrepareFork(options: Required<ForkOptions>): NativeJob<number>;
  startFork(number: number): NativeJob<ForkedMemory>;
  startRelease(number: number): NativeJob<void>;
}

const addon = loadAddon() as ForkAddon;
const regionsMax = 64;

/** A fork that is ready to be made: its tracer waits, and has looked at the process already. */
export interface PreparedFork {
  /** Once. @throws as `prepareFork` */
  fork(): Promise<ForkedMemory>;
  /** Lets the tracer and the child go, and resolves when they have ended. Not while `fork` is under way. */
  release(): Promise<void>;
}

/**
 * Makes ready to fork the memory of a process by ptrace of its main thread (native/process/fork-tracer.cc says how). Whatever
 * fails, the process is left as it was, and it goes on too if this process dies; the child then dies. Rejects with a
 * system error: EBUSY if somebody else traces the process, EPERM if ptrace is not allowed, ESRCH if there is no such
 * process (any more), EINVAL if a region is a shared mapping or none, ENOTSUP if it is not a 64-bit process,
 * ETIMEDOUT, ENOMEM or EAGAIN if it cannot fork.
 */
export async function prepareFork(options: ForkOptions): Promise<PreparedFork> {
  const { pid, regions, leftOut = [], timeoutMs } = options;
  if (!Number.isInteger(pid) || pid <= 0) throw new RangeError(`pid must be a positive integer: ${pid}`);
  if (regions.length > regionsMax) throw new RangeError(`at most ${regionsMax} regions`);
  if (!(timeoutMs > 0 && timeoutMs <= 60_000))
    throw new RangeError(`timeoutMs must be up to 60 s: ${timeoutMs}`);
  const number = await runJob(() => addon.startPrepareFork({ pid, regions, leftOut, timeoutMs }));
  return {
    fork: () => runJob(() => addon.startFork(number)),
    release: () => runJob(() => addon.startRelease(number)),
  };
}

const forks = new Map<number, PreparedFork>();

/** Prepares and forks in one. The child is let go by `release`. @throws as `prepareFork` */
export async function forkMemory(options: ForkOptions): Promise<ForkedMemory> {
  const prepared = await prepareFork(options);
  try {
    const forked = await prepared.fork();
    forks.set(forked.childPid, prepared);
    return forked;
  } catch (error) {
    await prepared.release();
    throw error;
  }
}

/** Lets a child of `forkMemory` die, and resolves when it has. Rejects with ESRCH if it is none of ours. */
export async function release(childPid: number): Promise<void> {
  const prepared = forks.get(childPid);
  if (prepared === undefined)
    throw Object.assign(new Error(`no fork has the pid ${childPid}`), { code: 'ESRCH' });
  forks.delete(childPid);
  await prepared.release();
}

/** Null if this process may trace another one to fork its memory, else why not. Does not stop it. */
export function probeTrace(pid: number): string | null {
  try {
    return refusalOf(readFileSync(`/proc/${pid}/status`, 'utf8'), readFileSync('/proc/self/status', 'utf8'));
  } catch (error) {
    return `its /proc cannot be read: ${error instanceof Error ? error.message : String(error)}`;
  }
}

const capSysPtrace = 1n << 19n;
const capSysAdmin = 1n << 21n;

/** Why a process of this /proc/PID/status cannot be traced by one of that. */
export function refusalOf(status: string, own: string): string | null {
  const tracer = fieldOf(status, 'TracerPid');
  if (tracer !== '0') return `it is already traced, by process ${tracer}`;
  const capabilities = BigInt(`0x${fieldOf(own, 'CapEff')}`);
  const sameUser = fieldOf(status, 'Uid') === fieldOf(own, 'Uid');
  if (!sameUser && (capabilities & capSysPtrace) === 0n) return 'CAP_SYS_PTRACE is missing';
  if (fieldOf(status, 'Seccomp') !== '0' && (capabilities & capSysAdmin) === 0n) {
    return 'it has a seccomp filter, and CAP_SYS_ADMIN, which suspends it, is missing';
  }
  return null;
}

function fieldOf(status: string, name: string): string {
  return new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? '0';
}
