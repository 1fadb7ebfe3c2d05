import { StaghornError } from '../errors/index.ts';
import { closeDescriptor, openPidfd, waitPidfd } from '../native/descriptors.ts';
import { isStillRunning, type QemuProcess } from './qemu-process.ts';

const boundMs = 10_000;

/**
 * Ends a VM at once and waits until its process has ended, and with it its hold on taps and sockets. SIGKILL: what
 * the VM would do at a proper end is of no use to anybody, since its state is about to be replaced.
 * @throws StaghornError 'vm-failed' if it is still there after 10 s.
 */
export async function terminateVm(vm: QemuProcess): Promise<void> {
  const pidfd = openPidfdOf(vm.pid);
  if (pidfd === null) return;
  try {
    if (!(await isStillRunning(vm))) return;
    process.kill(vm.pid, 'SIGKILL');
    // Not by /proc: a process loses its memory, and so its entries there, before it closes its files.
    await waitPidfd(pidfd, AbortSignal.timeout(boundMs));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ESRCH') return;
    throw new StaghornError(
      'vm-failed',
      `VM ${vm.name} (pid ${vm.pid}) did not end ${boundMs} ms after SIGKILL`,
      {
        cause: error,
      },
    );
  } finally {
    closeDescriptor(pidfd);
  }
}

function openPidfdOf(pid: number): number | null {
  try {
    return openPidfd(pid);
  } catch {
    // It has ended, and was waited for.
    return null;
  }
}
