import { constants, fstatSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';

import { closeDescriptor, createMemfd, sendDescriptor } from '../native/descriptors.ts';
import type { QmpClient } from '../qmp/index.ts';

/**
 * A memory file that QEMU writes its device state into: handed over as a descriptor, so that QEMU needs no right
 * to open a path (it may run as another user or in a sandbox), and nothing touches a disk while time stands still.
 */
export class DeviceStateFile {
  readonly #qmp: QmpClient;
  readonly #file: FileHandle;
  readonly #fdset: number;

  private constructor(qmp: QmpClient, file: FileHandle, fdset: number) {
    this.#qmp = qmp;
    this.#file = file;
    this.#fdset = fdset;
  }

  static async prepare(qmp: QmpClient): Promise<DeviceStateFile> {
    const memfd = createMemfd({ name: 'staghorn-device-state' });
    let file: FileHandle | undefined;
    let writable: FileHandle | undefined;
    try {
      file = await open(`/proc/self/fd/${memfd}`, constants.O_RDONLY);
      // QEMU takes a descriptor of a set only if its access mode is the one it opens with (monitor/fds.c).
      writable = await open(`/proc/self/fd/${memfd}`, constants.O_WRONLY);
      const command = qmp.prepare('add-fd', {}, { timeoutMs: 5_000 });
      await sendDescriptor({ socketFd: qmp.fd, fd: writable.fd, bytes: command.bytes });
      const reply = await command.reply;
      return new DeviceStateFile(qmp, file, reply['fdset-id']);
    } catch (error) {
      await file?.close();
      throw error;
    } finally {
      await writable?.close();
      closeDescriptor(memfd);
    }
  }

  /**
   * Writes the state of a stopped VM's devices, RAM left out (docs/xen-save-devices-state.txt of QEMU; nothing of
   * Xen is needed). `live: true` would inactivate the disks of a paused VM.
   * @returns nanoseconds that it took
   */
  async save(): Promise<number> {
    const startedAtNs = process.hrtime.bigint();
    await this.#qmp.execute(
      'xen-save-devices-state',
      { filename: `/dev/fdset/${this.#fdset}`, live: false },
      { timeoutMs: 30_000 },
    );
    return Number(process.hrtime.bigint() - startedAtNs);
  }

  async read(): Promise<Buffer> {
    const { size } = await this.#file.stat();
    const content = Buffer.alloc(size);
    for (let offset = 0; offset < size;) {
      const { bytesRead } = await this.#file.read(content, offset, size - offset, offset);
      if (bytesRead === 0) throw new Error('the device state became shorter while it was read');
      offset += bytesRead;
    }
    return content;
  }

  /** Synchronous: a thread pool would cost time while time stands still, and memory files answer at once. */
  bytes(): number {
    return fstatSync(this.#file.fd).size;
  }

  async close(): Promise<void> {
    await this.#file.close();
    // The set may be gone with its VM, or with the monitor that added it.
    await this.#qmp
      .execute('remove-fd', { 'fdset-id': this.#fdset }, { timeoutMs: 5_000 })
      .catch(() => undefined);
  }
}
