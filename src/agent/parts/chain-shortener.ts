import { messageOf } from '../../errors/index.ts';
import { connectQmp } from '../../vmm/connect-qmp.ts';
import { shortenChains } from '../../vmm/disks/shorten.ts';
import { isStillRunning, type QemuProcess } from '../../vmm/qemu-process.ts';
import { removeUnusedImages, type HostImages } from './unused-images.ts';

/**
 * Shortens chains of disk images while nothing else is done on this host.
 * Invariant: it has a QMP connection only while it works, and none once `stop` has returned: QEMU serves one client.
 */
export class ChainShortener {
  readonly #parts: HostImages;
  readonly #waiting = new Map<number, QemuProcess>();
  #work = new AbortController();
  #working: Promise<void> = Promise.resolve();

  constructor(parts: HostImages) {
    this.#parts = parts;
  }

  /** Begins in the background, with what an earlier `stop` has left too. */
  start(processes: readonly QemuProcess[] = []): void {
    for (const process of processes) this.#waiting.set(process.pid, process);
    if (this.#waiting.size === 0) return;
    const { signal } = (this.#work = new AbortController());
    this.#working = this.#working.then(() => this.#run(signal));
  }

  async stop(): Promise<void> {
    this.#work.abort();
    await this.#working;
  }

  /** Does something else that needs the VMs' QMP sockets, and goes on. */
  async yieldTo<T>(other: () => Promise<T>): Promise<T> {
    await this.stop();
    try {
      return await other();
    } finally {
      this.start();
    }
  }

  async #run(signal: AbortSignal): Promise<void> {
    for (const process of [...this.#waiting.values()]) {
      if (signal.aborted) return;
      await this.#shorten(process, signal);
      if (!signal.aborted) this.#waiting.delete(process.pid);
    }
    await removeUnusedImages(this.#parts);
  }

  async #shorten(process: QemuProcess, signal: AbortSignal): Promise<void> {
    const { disks, log } = this.#parts;
    try {
      if (!(await isStillRunning(process))) return;
      const { qmp } = await connectQmp(process, signal);
      try {
        await shortenChains(process, qmp, disks, signal);
      } finally {
        await qmp.close();
      }
    } catch (error) {
      if (!signal.aborted)
        log.warn({ vm: process.name }, `its chain of disk images was not shortened: ${messageOf(error)}`);
    }
  }
}
