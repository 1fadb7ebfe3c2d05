import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../errors/index.ts';
import { isStillRunning, type QemuProcess } from './qemu-process.ts';

const pollMs = 2;
const boundMs = 10_000;

/**
 * Ends a VM at once and waits until its process is gone, and with it its hold on taps and sockets. SIGKILL: what
 * the VM would do at a proper end is of no use to anybody, since its state is about to be replaced.
 * @throws StaghornError 'vm-failed' if it is still there after 10 s.
 */
export async function terminateVm(vm: QemuProcess, signal?: AbortSignal): Promise<void> {
  if (!(await isStillRunning(vm))) return;
  process.kill(vm.pid, 'SIGKILL');
  const startedAtMs = performance.now();
  while (await isStillRunning(vm)) {
    if (performance.now() - startedAtMs > boundMs) {
      throw new StaghornError(
        'vm-failed',
        `VM ${vm.name} (pid ${vm.pid}) did not end ${boundMs} ms after SIGKILL`,
      );
    }
    await delay(pollMs, undefined, { signal });
  }
}
