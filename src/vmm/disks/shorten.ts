import { randomBytes } from 'node:crypto';

import type { QmpClient } from '../../qmp/index.ts';
import type { QemuProcess } from '../qemu-process.ts';
import type { DiskDirectory } from './disk-directory.ts';
import { dropIdleNodes, jobPrefix, runJob } from './jobs.ts';
import type { LiveDisk } from './live-disk.ts';
import { readDisks } from './read-disks.ts';

/** Reads of a guest go through every image that has not what they look for. */
export const longestChain = 8;
/** What a chain that is too long is brought down to, so that not every snapshot has to shorten it again. */
const shortChain = 4;
/** The guests have the host's disks to themselves as long as this leaves them. */
const streamBytesPerSecond = 128 * 1024 * 1024;

/**
 * Which images are to be copied into the top one: from the second down to the one with this index. Only layers of
 * ours are; none is changed, since a snapshot may name it. Null: the chain is short enough, or not ours to shorten.
 */
export function planStream(ours: readonly boolean[]): number | null {
  if (ours.length <= longestChain) return null;
  const firstForeign = ours.indexOf(false);
  const last = Math.min(ours.length - shortChain, (firstForeign === -1 ? ours.length : firstForeign) - 1);
  return last < 1 ? null : last;
}

/** Shortens every chain of a running VM that is too long. @returns how many were */
export async function shortenChains(
  process: QemuProcess,
  qmp: QmpClient,
  directory: DiskDirectory,
  signal: AbortSignal,
): Promise<number> {
  const { disks } = await readDisks(process, qmp);
  let shortened = 0;
  for (const disk of disks) {
    const last = disk.readOnly ? null : planStream(disk.chain.map(({ path }) => directory.isOurs(path)));
    if (last === null || signal.aborted) continue;
    if (await stream(qmp, disk, last, signal)) shortened++;
  }
  await dropIdleNodes(qmp);
  return shortened;
}

async function stream(
  qmp: QmpClient,
  { node, chain }: LiveDisk,
  last: number,
  signal: AbortSignal,
): Promise<boolean> {
  const { name, format } = chain[last]!;
  const nodes = await qmp.execute('query-named-block-nodes', { flat: true });
  const bottom = nodes.find(({ file, drv }) => file === name && drv === format)?.['node-name'];
  if (bottom === undefined) return false;
  const id = `${jobPrefix}${randomBytes(6).toString('hex')}`;
  const job = { device: node, bottom, 'job-id': id, speed: streamBytesPerSecond };
  return runJob(qmp, id, () => qmp.execute('block-stream', job), signal);
}
