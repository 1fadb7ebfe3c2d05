import { readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';

import { operate } from '../../demo/operate.ts';
import { OwnServer } from '../../demo/server.ts';
import { labDown, labUp, parseLabFile, type Lab } from '../../lab/index.ts';
import { forkResult, type ForkResult } from '../../protocol/fork.ts';
import { experiment, snapshot } from '../../protocol/resources.ts';
import type { BenchOptions, BenchResult } from '../bench.ts';
import { qemuMemory } from './memory.ts';
import { processorTimes, takenBetween, type ProcessorTimes } from './processor-time.ts';

const forkCount = { full: 10, quick: 3 };
const memoryMiB = 128;
const allRunLimitMs = 8_000;
const memoryLimitPercent = 25;

/** Forks of an experiment of four VMs on two hosts: until all of them run, and what memory they take then. */
export async function forkBench(options: BenchOptions): Promise<BenchResult[]> {
  const { onStep, signal, quick } = options;
  onStep(`four VMs of ${memoryMiB} MiB`);
  const lab = await labUp(labFile(), { signal });
  try {
    const server = await OwnServer.start();
    try {
      return await measureForks(lab, server, { ...options, count: quick ? forkCount.quick : forkCount.full });
    } finally {
      await server.stop();
    }
  } finally {
    await labDown(lab.name);
  }
}

/** Guests that mostly idle: forty that talk all the time would measure the processors. */
function labFile() {
  const vms = ['a h1', 'b h1', 'c h2', 'd h2'].map((vm) => {
    const [name, host] = vm.split(' ');
    return `  - { name: ${name}, host: ${host}, memoryMiB: ${memoryMiB}, probe: { udpIntervalMs: 1000, tcp: false } }`;
  });
  return parseLabFile(
    [
      `name: bench-forks-${process.pid}`,
      'management: 198.18.120.0/24',
      'underlay: 198.18.121.0/24',
      'hosts: [{ name: h1 }, { name: h2 }]',
      'vms:',
      ...vms,
    ].join('\n'),
  );
}

export async function measureForks(
  lab: Lab,
  { client, pid }: OwnServer,
  { count, signal, onStep }: BenchOptions & { readonly count: number },
): Promise<BenchResult[]> {
  const body: unknown = JSON.parse(await readFile(lab.experimentFile, 'utf8'));
  await client.json('POST', '/v1/experiments', experiment, { body });
  const { id } = await operate(client, `/v1/experiments/${lab.name}/snapshots`, {}, snapshot, signal);
  const separate = sum((await qemuMemory(lab)).values()) * count;
  onStep(`${count} forks at once`);
  const before = await processorTimes(lab, pid);
  const result = await operate(client, `/v1/snapshots/${id}/forks`, { count }, forkResult, signal);
  const after = await processorTimes(lab, pid);
  const memory = await qemuMemory(lab);
  const names = new Set(result.forks.flatMap(({ vms }) => vms.map(({ name }) => name)));
  const own = sum([...memory].flatMap(([name, bytes]) => (names.has(name) ? [bytes] : [])));
  onStep('taking them away');
  for (const { experiment: name } of result.forks)
    await client.send('DELETE', `/v1/experiments/${name}?destroy=true`);
  return [...describe(result, { own, separate }), describeFloor(result, before, after)];
}

/** No order of steps is faster than the processors: what the forks' QEMUs take alone, and who takes the rest. */
function describeFloor({ forks }: ForkResult, before: ProcessorTimes, after: ProcessorTimes): BenchResult {
  const { newQemusMs, others } = takenBetween(before, after);
  const cores = availableParallelism();
  const shares = [...others]
    .filter(([, ms]) => ms > 0)
    .sort(([, left], [, right]) => right - left)
    .map(([command, ms]) => `${command} ${ms}`);
  return {
    metric: `of it, what ${cores} cores need for the QEMUs of ${forks.length} forks alone`,
    value: Math.round(newQemusMs / cores),
    unit: 'ms',
    goal: null,
    met: null,
    reference: `processor time in ms: these QEMUs ${newQemusMs}, ${shares.join(', ')}`,
  };
}

function describe(result: ForkResult, { own, separate }: { own: number; separate: number }): BenchResult[] {
  const { forks, durationMs } = result;
  const vms = forks.reduce((total, fork) => total + fork.vms.length, 0);
  const first = Math.min(...forks.map((fork) => fork.durationMs));
  const percent = (100 * own) / separate;
  return [
    {
      metric: `${forks.length} forks of 4 VMs of ${memoryMiB} MiB, request to all ${vms} running`,
      value: Math.round(durationMs),
      unit: 'ms',
      goal: `≤ ${allRunLimitMs}`,
      met: durationMs <= allRunLimitMs,
      reference: `first fork after ${Math.round(first)} ms`,
    },
    {
      metric: `memory of the forks right after, of ${vms} separate VMs`,
      value: Number(percent.toPrecision(3)),
      unit: '%',
      goal: `≤ ${memoryLimitPercent}`,
      met: percent <= memoryLimitPercent,
      reference: `PSS ${mebibytes(own)} MiB against ${mebibytes(separate)} MiB; a VM ${mebibytes(own / vms)} against ${mebibytes(separate / vms)} MiB`,
    },
  ];
}

const mebibytes = (bytes: number) => Math.round(bytes / 1024 / 1024);
const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);
