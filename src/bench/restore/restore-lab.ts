import { readFile } from 'node:fs/promises';

import type { ApiClient } from '../../cli/client.ts';
import { operate } from '../../demo/operate.ts';
import { OwnServer } from '../../demo/server.ts';
import { labDown, labStatus, labUp, parseLabFile, type Lab } from '../../lab/index.ts';
import { experiment, snapshot } from '../../protocol/resources.ts';
import type { BenchOptions } from '../bench.ts';
import type { RestoreSize } from './measurement.ts';
import { writeUntouchedRam } from './written-ram.ts';

export interface RestoreLab {
  readonly lab: Lab;
  readonly client: ApiClient;
  /** Of its one VM. */
  readonly snapshot: string;
}

/** One host with one VM, whose RAM is written to, and a snapshot of it, behind a server; all gone afterwards. */
export async function withRestoreLab<T>(
  size: RestoreSize,
  { signal }: BenchOptions,
  work: (lab: RestoreLab) => Promise<T>,
): Promise<T> {
  const lab = await labUp(labFile(size), { signal });
  try {
    const server = await OwnServer.start();
    try {
      const { client } = server;
      await writeUntouchedRam(await pidOf(lab), size.memoryMiB);
      const body: unknown = JSON.parse(await readFile(lab.experimentFile, 'utf8'));
      await client.json('POST', '/v1/experiments', experiment, { body });
      const { id } = await operate(client, `/v1/experiments/${lab.name}/snapshots`, {}, snapshot, signal);
      return await work({ lab, client, snapshot: id });
    } finally {
      await server.stop();
    }
  } finally {
    await labDown(lab.name);
  }
}

async function pidOf(lab: Lab): Promise<number> {
  const [vm] = (await labStatus(lab.name)).vms;
  if (vm === undefined || vm.pid === null) throw new Error('the VM of the lab does not run');
  return vm.pid;
}

function labFile({ memoryMiB }: RestoreSize) {
  return parseLabFile(`name: bench-restore-${process.pid}
management: 198.18.119.0/25
hosts: [{ name: h1 }]
vms: [{ name: a, host: h1, memoryMiB: ${memoryMiB} }]
`);
}
