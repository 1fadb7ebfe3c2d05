import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, fstatSync, mkdtempSync, openSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import {
  closeDescriptor,
  createMemfd,
  duplicateDescriptor,
  lockFile,
  openPidfd,
  pollReadable,
  sendDescriptor,
  waitPidfd,
} from '../../src/native/descriptors.ts';
import { TestQemu } from './qemu.ts';

const disposals: (() => void | Promise<void>)[] = [];

afterEach(async () => {
  for (const dispose of disposals.splice(0).reverse()) await dispose();
});

function temporaryFile(): string {
  const directory = mkdtempSync(join(tmpdir(), 'staghorn-fd-'));
  disposals.push(() => rmSync(directory, { recursive: true }));
  return join(directory, 'file');
}

describe('descriptors', () => {
  test('of a memfd take the device state of a stopped VM, passed over QMP', async () => {
    const qemu = await TestQemu.startCounting();
    disposals.push(() => qemu.stop());
    await qemu.qmp.execute('stop');
    const memfd = createMemfd({ name: 'device-state' });
    disposals.push(() => closeDescriptor(memfd));
    // QEMU wants a descriptor that was opened as it would open the file itself: for writing only.
    const writable = openSync(`/proc/self/fd/${memfd}`, 'w');
    disposals.push(() => closeSync(writable));
    const add = { execute: 'add-fd', arguments: { 'fdset-id': 7 } };
    const answer = qemu.qmp.answer();
    await sendDescriptor({
      socketFd: qemu.qmp.fd,
      fd: writable,
      bytes: Buffer.from(`${JSON.stringify(add)}\n`),
    });
    expect(await answer).toMatchObject({ 'fdset-id': 7 });
    await qemu.qmp.execute('xen-save-devices-state', { filename: '/dev/fdset/7', live: false });
    const { size } = fstatSync(memfd);
    expect(size).toBeGreaterThan(1000);
    const magic = Buffer.alloc(4);
    readSync(memfd, magic, 0, 4, 0);
    expect(magic.toString()).toBe('QEVM');
  });

  test('of another process are duplicated: the same open file', async () => {
    const path = temporaryFile();
    const child = spawn('sleep', ['1000'], { stdio: ['ignore', openSync(path, 'w'), 'ignore'] });
    disposals.push(() => void child.kill('SIGKILL'));
    const fd = duplicateDescriptor({ pid: child.pid ?? 0, fd: 1 });
    writeSync(fd, 'through the duplicate');
    closeDescriptor(fd);
    expect(statSync(path).size).toBe(21);
    expect(() => duplicateDescriptor({ pid: child.pid ?? 0, fd: 999 })).toThrow(
      expect.objectContaining({ code: 'EBADF', syscall: 'pidfd_getfd' }),
    );
    expect(() => duplicateDescriptor({ pid: 2 ** 22 - 1, fd: 0 })).toThrow(
      expect.objectContaining({ code: 'ESRCH' }),
    );
    expect(() => closeDescriptor(fd)).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  test('of a full socket time out, and can be given up', async () => {
    const qemu = await TestQemu.start();
    disposals.push(() => qemu.stop());
    qemu.process.kill('SIGSTOP');
    disposals.push(() => void qemu.process.kill('SIGCONT'));
    const fd = openSync('/dev/null', 'r');
    disposals.push(() => closeSync(fd));
    const flood = { socketFd: qemu.qmp.fd, fd, bytes: Buffer.alloc(16 << 20, ' ') };
    await expect(sendDescriptor({ ...flood, timeoutMs: 50 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    const controller = new AbortController();
    const sending = sendDescriptor({ ...flood, timeoutMs: 60_000, signal: controller.signal });
    controller.abort();
    await expect(sending).rejects.toThrow(/abort/);
  });

  test('lock a file for one open file at a time', () => {
    const path = temporaryFile();
    const [first, second] = [openSync(path, 'w'), openSync(path, 'r')];
    expect(lockFile(first)).toBe(true);
    expect(lockFile(second)).toBe(false);
    closeSync(first);
    expect(lockFile(second)).toBe(true);
    closeSync(second);
  });

  test('tell which of them can be read', async () => {
    const child = spawn('cat', { stdio: ['pipe', 'pipe', 'ignore'] });
    disposals.push(() => void child.kill('SIGKILL'));
    const empty = duplicateDescriptor({ pid: child.pid ?? 0, fd: 0 });
    const file = openSync('/dev/zero', 'r');
    disposals.push(() => closeSync(file));
    expect(pollReadable([empty, file])).toEqual([false, true]);
    closeDescriptor(empty);
    expect(() => pollReadable([empty])).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  test('of a process tell of its end, and the wait can be given up', async () => {
    const child = spawn('sleep', ['1000']);
    const exited = once(child, 'exit');
    const pidfd = openPidfd(child.pid ?? 0);
    disposals.push(() => closeDescriptor(pidfd));
    const controller = new AbortController();
    const givenUp = waitPidfd(pidfd, controller.signal);
    controller.abort();
    await expect(givenUp).rejects.toThrow(/abort/);
    const ended = waitPidfd(pidfd);
    child.kill('SIGKILL');
    await ended;
    await exited;
  });
});
