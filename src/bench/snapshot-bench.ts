import { readFile } from 'node:fs/promises';

import { followOperation } from '../cli/follow.ts';
import { Guests } from '../demo/guests.ts';
import { operate } from '../demo/operate.ts';
import { OwnServer } from '../demo/server.ts';
import { labDown, labUp, parseLabFile, type Lab } from '../lab/index.ts';
import {
  experiment,
  operation,
  restoreResult,
  snapshot,
  type RestoreResult,
  type Snapshot,
} from '../protocol/resources.ts';
import { medianAtMost, type BenchOptions, type BenchResult } from './bench.ts';
import { requestToCut } from './request-to-cut.ts';

const sizesMiB = [128, 1024];
const rounds = { full: 10, quick: 3 };
const pauseLimitMs = 25;
const spreadLimitMs = 1;
const restoreLimitMs = 600;
/** One a second. */
const settledReports = 3;

/**
 * How long VMs stand still for a snapshot, how far apart, and how long a restore takes: four VMs on two hosts. Then,
 * how long after the request four hosts are cut.
 */
export async function snapshotBench(options: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const memoryMiB of sizesMiB) results.push(...(await measureSize(memoryMiB, options)));
  return [...results, ...(await requestToCut(options))];
}

async function measureSize(
  memoryMiB: number,
  { quick, onStep, signal }: BenchOptions,
): Promise<BenchResult[]> {
  onStep(`four VMs of ${memoryMiB} MiB`);
  const lab = await labUp(labFile(memoryMiB), { signal });
  try {
    const server = await OwnServer.start();
    try {
      const { snapshots, restores } = await measure(
        lab,
        server,
        quick ? rounds.quick : rounds.full,
        signal,
        onStep,
      );
      return describe(memoryMiB, snapshots, restores);
    } finally {
      await server.stop();
    }
  } finally {
    await labDown(lab.name);
  }
}

function labFile(memoryMiB: number) {
  const vms = ['a h1', 'b h1', 'c h2', 'd h2'].map((vm) => {
    const [name, host] = vm.split(' ');
    return `  - { name: ${name}, host: ${host}, memoryMiB: ${memoryMiB} }`;
  });
  return parseLabFile(
    [
      `name: bench-${process.pid}`,
      'management: 198.18.90.0/24',
      'underlay: 198.19.90.0/24',
      'hosts: [{ name: h1 }, { name: h2 }]',
      'vms:',
      ...vms,
    ].join('\n'),
  );
}

async function measure(
  lab: Lab,
  { client }: OwnServer,
  count: number,
  signal: AbortSignal,
  onStep: (text: string) => void,
) {
  const body: unknown = JSON.parse(await readFile(lab.experimentFile, 'utf8'));
  await client.json('POST', '/v1/experiments', experiment, { body });
  const path = `/v1/experiments/${lab.name}/snapshots`;
  // The first one opens connections and deploys agents; users keep both.
  await operate(client, path, {}, snapshot, signal);
  const guests = new Guests(lab);
  const snapshots: Snapshot[] = [];
  const restores: RestoreResult[] = [];
  for (let round = 0; round < count; round++) {
    const taken = await operate(client, path, {}, snapshot, signal);
    snapshots.push(taken);
    restores.push(
      await operate(client, `/v1/snapshots/${taken.id}/restore`, { replace: true }, restoreResult, signal),
    );
    const { id } = await client.json('DELETE', `/v1/snapshots/${taken.id}`, operation);
    await followOperation(client, id, { signal, onProgress: () => undefined });
    // A restored guest translates its code anew for a moment: that belongs to the restore, not to the next pause.
    await guests.waitForReports(await guests.offsets(), settledReports);
    onStep(`round ${round + 1} of ${count}: paused ${(taken.pauseNs.max / 1e6).toFixed(1)} ms`);
  }
  return { snapshots, restores };
}

function describe(
  memoryMiB: number,
  snapshots: readonly Snapshot[],
  restores: readonly RestoreResult[],
): BenchResult[] {
  const size = `4 VMs of ${memoryMiB} MiB`;
  const ms = (of: (taken: Snapshot) => number) => snapshots.map((taken) => of(taken) / 1e6);
  return [
    medianAtMost({
      metric: `longest pause, ${size}`,
      unit: 'ms',
      values: ms((taken) => taken.pauseNs.max),
      limit: pauseLimitMs,
    }),
    medianAtMost({
      metric: `spread of pauses, ${size}`,
      unit: 'ms',
      values: ms((taken) => taken.pauseNs.max - taken.pauseNs.min),
      limit: spreadLimitMs,
    }),
    {
      ...medianAtMost({
        metric: `skew of stops, ${size}`,
        unit: 'ms',
        values: ms((taken) => taken.skewNs),
        limit: 0,
      }),
      goal: null,
      met: null,
    },
    medianAtMost({
      metric: `restore, request to last VM running, ${size}`,
      unit: 'ms',
      values: restores.map(({ durationMs }) => durationMs),
      limit: restoreLimitMs,
    }),
  ];
}
