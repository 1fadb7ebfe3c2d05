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
 * Resets the devices of a stopped QEMU and loads a device state into them; it stays stopped. The RAM must be in place
 * before: virtio devices look at their rings when they load. (QEMU migration/savevm.c, load_snapshot. Its
 * xen-load-devices-state neither resets the devices nor survives its own end: docs/decisions/0023.)
 * @throws StaghornError 'vm-failed'; what the VM then holds is neither the one state nor the other
 */
export async function loadInPlace(name: string, qmp: QmpClient, state: Buffer): Promise<void> {
  try {
    // A network that hears announcements would know (as in launch.ts).
    await qmp.execute('migrate-set-parameters', { 'announce-rounds': 0 });
    const fdset = await handOver(qmp, vmStateImage(withoutAnnouncements(state)));
    try {
      await qmp.execute('blockdev-add', {
        driver: 'qcow2',
        'node-name': node,
        cache: { direct: false, 'no-flush': true },
        file: { driver: 'file', filename: `/dev/fdset/${fdset}`, locking: 'off' },
      });
      await load(qmp);
    } finally {
      await qmp.execute('remove-fd', { 'fdset-id': fdset }).catch(() => undefined);
    }
  } catch (error) {
    throw vmError(name, 'loading a state in place', error);
  }
}

async function handOver(qmp: QmpClient, image: Buffer): Promise<number> {
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

async function load(qmp: QmpClient): Promise<void> {
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
  ]);
  const ended = jobs.find(({ id }) => id === job);
  if (ended?.error !== undefined) throw new QmpError('command-failed', `snapshot-load: ${ended.error}`);
}
