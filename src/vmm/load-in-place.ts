import { writeSync } from 'node:fs';

import { closeDescriptor, createMemfd, sendDescriptor } from '../native/descriptors.ts';
import { QmpError, type QmpClient } from '../qmp/index.ts';
import { withoutAnnouncements } from './announcements.ts';
import { vmError } from './connect-qmp.ts';
import { stateTag, vmStateImage } from './vm-state-image.ts';

const node = 'staghorn-vm-state';
const job = 'staghorn-load';
const loadBoundMs = 60_000;

/**
 * A device state that a running QEMU has been handed, to be loaded when it stands still. Until then nothing of the VM
 * is touched. (QEMU migration/savevm.c, load_snapshot. Its xen-load-devices-state neither resets the devices nor
 * survives its own end: docs/decisions/0023.)
 */
export class StateInPlace {
  readonly #name: string;
  readonly #qmp: QmpClient;
  readonly #fdset: number;

  private constructor(name: string, qmp: QmpClient, fdset: number) {
    this.#name = name;
    this.#qmp = qmp;
    this.#fdset = fdset;
  }

  /** @throws StaghornError 'vm-failed' */
  static async handOver(name: string, qmp: QmpClient, state: Buffer): Promise<StateInPlace> {
    try {
      const [fdset] = await Promise.all([
        sendImage(qmp, vmStateImage(withoutAnnouncements(state))),
        // A network that hears announcements would know (as in launch.ts).
        qmp.execute('migrate-set-parameters', { 'announce-rounds': 0 }),
      ]);
      await qmp.execute('blockdev-add', {
        driver: 'qcow2',
        'node-name': node,
        cache: { direct: false, 'no-flush': true },
        file: { driver: 'file', filename: `/dev/fdset/${fdset}`, locking: 'off' },
      });
      return new StateInPlace(name, qmp, fdset);
    } catch (error) {
      throw vmError(name, 'taking a state to be loaded in place', error);
    }
  }

  /**
   * Resets the devices of the stopped QEMU and loads the state into them; it stays stopped. The RAM must be in place
   * before: virtio devices look at their rings when they load.
   * @throws StaghornError 'vm-failed'; what the VM then holds is neither the one state nor the other
   */
  async load(): Promise<void> {
    try {
      await this.#load();
    } catch (error) {
      throw vmError(this.#name, 'loading a state in place', error);
    }
  }

  async #load(): Promise<void> {
    const qmp = this.#qmp;
    const concluded = qmp.waitEvent('JOB_STATUS_CHANGE', {
      timeoutMs: loadBoundMs,
      where: ({ data }) => data.id === job && data.status === 'concluded',
    });
    concluded.catch(() => undefined);
    await qmp.execute('snapshot-load', { 'job-id': job, tag: stateTag, vmstate: node, devices: [node] });
    await concluded;
    // QEMU answers in order: none has to wait for the one before.
    const [jobs] = await Promise.all([
      qmp.execute('query-jobs'),
      qmp.execute('job-dismiss', { id: job }),
      qmp.execute('blockdev-del', { 'node-name': node }),
      qmp.execute('remove-fd', { 'fdset-id': this.#fdset }).catch(() => undefined),
    ]);
    const ended = jobs.find(({ id }) => id === job);
    if (ended?.error !== undefined) throw new QmpError('command-failed', `snapshot-load: ${ended.error}`);
  }
}

/** @returns the number that QEMU knows it by */
async function sendImage(qmp: QmpClient, image: Buffer): Promise<number> {
  const fd = createMemfd({ name: node });
  try {
    for (let done = 0; done < image.length;) done += writeSync(fd, image, done);
    const command = qmp.prepare('add-fd', {}, { timeoutMs: 5_000 });
    await sendDescriptor({ socketFd: qmp.fd, fd, bytes: command.bytes });
    return (await command.reply)['fdset-id'];
  } finally {
    closeDescriptor(fd);
  }
}
