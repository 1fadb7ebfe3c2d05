import { readFile } from 'node:fs/promises';

import { OwnServer } from '../../demo/server.ts';
import { operate } from '../../demo/operate.ts';
import { Guests } from '../../demo/guests.ts';
import { labDown, labUp, parseLabFile } from '../../lab/index.ts';
import { experiment, snapshot } from '../../protocol/resources.ts';
import type { BenchOptions } from '../bench.ts';

/** One a second. */
const settledReports = 5;

/** What two snapshots of a guest that has nobody to talk to take, one after the other. */
export async function idleBytes(
  memoryMiB: number,
  { signal }: BenchOptions,
): Promise<{ firstBytes: number; secondBytes: number }> {
  const lab = await labUp(labFile(memoryMiB), { signal });
  try {
    const server = await OwnServer.start();
    try {
      const body: unknown = JSON.parse(await readFile(lab.experimentFile, 'utf8'));
      await server.client.json('POST', '/v1/experiments', experiment, { body });
      const path = `/v1/experiments/${lab.name}/snapshots`;
      const guests = new Guests(lab);
      await guests.waitForReports(await guests.offsets(), settledReports);
      const first = await operate(server.client, path, {}, snapshot, signal);
      await guests.waitForReports(await guests.offsets(), settledReports);
      const second = await operate(server.client, path, {}, snapshot, signal);
      return { firstBytes: first.bytes, secondBytes: second.bytes };
    } finally {
      await server.stop();
    }
  } finally {
    await labDown(lab.name);
  }
}

function labFile(memoryMiB: number) {
  return parseLabFile(`name: save-${process.pid}
management: 198.18.100.0/24
underlay: 198.18.101.0/24
hosts: [{ name: h1 }]
vms: [{ name: a, host: h1, memoryMiB: ${memoryMiB} }]
`);
}
