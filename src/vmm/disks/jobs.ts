import { QmpError, type QmpClient } from '../../qmp/index.ts';

/** Nodes and jobs of ours inside a QEMU are told by their names. */
export const namePrefix = 'staghorn-';
export const jobPrefix = namePrefix;
const jobBoundMs = 10 * 60_000;
const endBoundMs = 30_000;

/**
 * Runs a block job to its end, which QEMU's events tell. When the signal aborts, the job is cancelled: what it has
 * copied stays where it is of use, and the chain stays as it was.
 * @returns whether it was completed
 */
export async function runJob(
  qmp: QmpClient,
  id: string,
  start: () => Promise<unknown>,
  signal: AbortSignal,
): Promise<boolean> {
  const ended = endOf(qmp, id, jobBoundMs);
  ended.catch(() => undefined);
  await start();
  const cancel = () => void cancelJob(qmp, id);
  signal.addEventListener('abort', cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    return await ended;
  } finally {
    signal.removeEventListener('abort', cancel);
  }
}

/** Ends what a dead agent has left working; the nodes of a job cannot be made immutable. @returns how many there were */
export async function endJobs(qmp: QmpClient): Promise<number> {
  const jobs = await qmp.execute('query-block-jobs');
  const own = jobs.filter(({ device }) => device.startsWith(jobPrefix));
  for (const { device } of own) {
    const ended = endOf(qmp, device, endBoundMs).catch(() => false);
    // One that is not there any more has ended by itself, and no event will come.
    if (await cancelJob(qmp, device)) await ended;
  }
  return own.length;
}

async function cancelJob(qmp: QmpClient, device: string): Promise<boolean> {
  return qmp.execute('block-job-cancel', { device }).then(
    () => true,
    () => false,
  );
}

async function endOf(qmp: QmpClient, id: string, timeoutMs: number): Promise<boolean> {
  const options = { timeoutMs, where: ({ data }: { data: { device: string } }) => data.device === id };
  const waits = new AbortController();
  const bounded = { ...options, signal: waits.signal };
  try {
    const event = await Promise.race([
      qmp.waitEvent('BLOCK_JOB_COMPLETED', bounded),
      qmp.waitEvent('BLOCK_JOB_CANCELLED', bounded),
    ]);
    if (event.name === 'BLOCK_JOB_CANCELLED') return false;
    const { error } = event.data as { error?: string };
    if (error !== undefined) throw new QmpError('command-failed', `block job ${id}: ${error}`);
    return true;
  } finally {
    waits.abort();
  }
}

/**
 * Lets go of nodes of ours that no disk uses: overlays that were made ready and not needed, layers whose contents
 * were copied away. QEMU itself refuses to delete one that is in use.
 */
export async function dropIdleNodes(qmp: QmpClient): Promise<void> {
  let left = (await qmp.execute('query-named-block-nodes', { flat: true }))
    .map((node) => node['node-name'])
    .filter((name) => name.startsWith(namePrefix));
  for (let before = left.length + 1; left.length > 0 && left.length < before;) {
    before = left.length;
    const kept: string[] = [];
    for (const name of left) if (!(await deleteNode(qmp, name))) kept.push(name);
    left = kept;
  }
}

export async function deleteNode(qmp: QmpClient, node: string): Promise<boolean> {
  return qmp.execute('blockdev-del', { 'node-name': node }).then(
    () => true,
    (error: unknown) => {
      if (error instanceof QmpError && error.code === 'command-failed') return false;
      throw error;
    },
  );
}
