import { setTimeout as delay } from 'node:timers/promises';
import { loadAddon } from './addon.ts';
import { runJob } from './job.ts';
import type { NativeJob } from './job.ts';

interface DescriptorsAddon {
  openPidfd(pid: number): number;
  duplicateDescriptor(pid: number, fd: number): number;
  sendSome(socketFd: number, fd: number, bytes: Uint8Array): number;
  createMemfd(name: string): number;
  lockFile(fd: number): boolean;
  closeDescriptor(fd: number): void;
  pollReadable(fds: readonly number[]): boolean[];
  waitsToRead(pid: number, fds: readonly number[]): boolean[] | null;
  startWaitPidfd(pidfd: number): NativeJob<void>;
}

const addon = loadAddon() as DescriptorsAddon;

const sendRetryMs = 1;
const sendTimeoutMsDefault = 1000;

/** Throws a plain system error (with `code`, `errno`, `syscall`) like all of this file; the caller closes what it gets. */
export function openPidfd(pid: number): number {
  return addon.openPidfd(requireInteger('pid', pid));
}

/**
 * A duplicate of another process's descriptor: the same open file (pidfd_getfd(2), Linux 5.6). Needs ptrace
 * permission; EPERM without it, EBADF if there is no such descriptor, ESRCH if there is no such process.
 */
export function duplicateDescriptor(source: { readonly pid: number; readonly fd: number }): number {
  return addon.duplicateDescriptor(requireInteger('pid', source.pid), requireInteger('fd', source.fd));
}

export interface SendDescriptorOptions {
  /** A connected Unix stream socket. Nothing else may write to it meanwhile. */
  readonly socketFd: number;
  readonly fd: number;
  /** Go with the descriptor (SCM_RIGHTS needs at least one byte). */
  readonly bytes: Uint8Array;
  /** For how long a full socket is waited for; then ETIMEDOUT. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** Sends bytes over a Unix socket and a descriptor with the first of them (unix(7)). */
export async function sendDescriptor(options: SendDescriptorOptions): Promise<void> {
  const { socketFd, fd, bytes, timeoutMs = sendTimeoutMsDefault, signal } = options;
  if (bytes.length === 0) throw new RangeError('a descriptor is sent with at least one byte');
  requireInteger('fd', fd);
  const deadlineMs = performance.now() + timeoutMs;
  for (let sent = 0; sent < bytes.length;) {
    signal?.throwIfAborted();
    const some = addon.sendSome(socketFd, sent === 0 ? fd : -1, bytes.subarray(sent));
    sent += some;
    if (some > 0) continue;
    if (performance.now() >= deadlineMs) {
      throw Object.assign(new Error(`the socket took no data for ${timeoutMs} ms`), { code: 'ETIMEDOUT' });
    }
    await delay(sendRetryMs, undefined, { signal });
  }
}

/** An anonymous file in memory (memfd_create(2)), close-on-exec. */
export function createMemfd(options: { readonly name: string }): number {
  return addon.createMemfd(options.name);
}

/** Takes an exclusive flock(2) without waiting; false if another open file holds one. */
export function lockFile(fd: number): boolean {
  return addon.lockFile(requireInteger('fd', fd));
}

export function closeDescriptor(fd: number): void {
  addon.closeDescriptor(requireInteger('fd', fd));
}

/** For each descriptor whether it can be read now. Does not wait. Throws EBADF for one that is not open. */
export function pollReadable(fds: readonly number[]): boolean[] {
  return addon.pollReadable(fds);
}

/**
 * For each of its own descriptors whether a process's main thread waits in poll(2) to read it; null if the thread does
 * something else at this moment, or if that cannot be known.
 */
export function waitsToRead(pid: number, fds: readonly number[]): boolean[] | null {
  return addon.waitsToRead(requireInteger('pid', pid), fds);
}

/** Resolves when the process of a pidfd has ended. Keep the pidfd open until then. */
export async function waitPidfd(pidfd: number, signal?: AbortSignal): Promise<void> {
  return runJob(() => addon.startWaitPidfd(requireInteger('pidfd', pidfd)), signal);
}

function requireInteger(name: string, value: number): number {
  if (!Number.isInteger(value) || value < 0)
    throw new RangeError(`${name} must be an integer from 0 on: ${value}`);
  return value;
}
