import { readFile } from 'node:fs/promises';

import { followOperation } from '../cli/follow.ts';
import { OwnServer } from '../demo/server.ts';
import { labDown, labUp, parseLabFile, type Lab } from '../lab/index.ts';
import { experiment, operation, snapshot } from '../protocol/resources.ts';
import { medianAtMost, type BenchOptions, type BenchResult } from './bench.ts';

/** One host alone shows what of it is the work, and what that all hosts of the lab share the cores of one machine. */
const hostCounts = [4, 1];
const goalHosts = 4;
const memoryMiB = 96;
const rounds = { full: 20, quick: 5 };
const toCutLimitMs = 100;

/** When each step of a snapshot began, and when its last VM stood still, all in milliseconds since the request. */
interface Course {
  readonly stepsMs: ReadonlyMap<string, number>;
  readonly toCutMs: number;
}

/** From the request of a snapshot to the moment that time stands still, over SSH, connections up. */
export async function requestToCut(options: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const count of hostCounts) results.push(...(await measureHosts(count, options)));
  return results;
}

async function measureHosts(
  hostCount: number,
  { quick, onStep, signal }: BenchOptions,
): Promise<BenchResult[]> {
  onStep(`request to cut, hosts: ${hostCount}`);
  const lab = await labUp(labFile(hostCount), { signal });
  try {
    const server = await OwnServer.start();
    try {
      return describe(hostCount, await measure(lab, server, quick ? rounds.quick : rounds.full, signal));
    } finally {
      await server.stop();
    }
  } finally {
    await labDown(lab.name);
  }
}

function labFile(hostCount: number) {
  const hosts = Array.from({ length: hostCount }, (_, place) => `h${place + 1}`);
  const lines = [
    `name: bench-cut-${process.pid}`,
    'management: 198.18.91.0/24',
    'underlay: 198.19.91.0/24',
    `hosts: [${hosts.map((name) => `{ name: ${name} }`).join(', ')}]`,
    'vms:',
    ...hosts.map((host) => `  - { name: ${host}-vm, host: ${host}, memoryMiB: ${memoryMiB} }`),
  ];
  return parseLabFile(lines.join('\n'));
}

interface Courses {
  /** It opens connections and deploys agents; users keep both. */
  readonly first: Course;
  readonly later: readonly Course[];
}

async function measure(lab: Lab, server: OwnServer, count: number, signal: AbortSignal): Promise<Courses> {
  const body: unknown = JSON.parse(await readFile(lab.experimentFile, 'utf8'));
  await server.client.json('POST', '/v1/experiments', experiment, { body });
  const first = await takeOne(lab, server, signal);
  const later: Course[] = [];
  while (later.length < count) later.push(await takeOne(lab, server, signal));
  return { first, later };
}

async function takeOne(lab: Lab, { client }: OwnServer, signal: AbortSignal): Promise<Course> {
  const requestedAtMs = Date.now();
  const stepsMs = new Map<string, number>();
  const started = await client.json('POST', `/v1/experiments/${lab.name}/snapshots`, operation, { body: {} });
  for await (const { at, progress } of client.events(started.id, { afterId: 0, signal })) {
    const step = progress?.step;
    if (step !== undefined && !stepsMs.has(step)) stepsMs.set(step, Date.parse(at) - requestedAtMs);
  }
  const taken = await client.json('GET', `/v1/snapshots/${started.snapshot}`, snapshot);
  const toCutMs = Date.parse(taken.stoppedAt!) - requestedAtMs + taken.skewNs / 1e6;
  const { id } = await client.json('DELETE', `/v1/snapshots/${taken.id}`, operation);
  await followOperation(client, id, { signal, onProgress: () => undefined });
  return { stepsMs, toCutMs };
}

/** Each step ends where the next one begins; that of the cut with the cut. */
const steps = [
  { step: 'connect', what: 'exchange of clocks' },
  { step: 'arm', what: 'arm' },
  { step: 'probe', what: 'probe: sending markers' },
  { step: 'listen', what: 'listen: hearing them' },
  { step: 'schedule', what: 'schedule: agreeing on the instant' },
  { step: 'cut', what: 'cut: waiting for the instant' },
] as const;

function describe(hostCount: number, { first, later }: Courses): BenchResult[] {
  const size = `${hostCount} ${hostCount === 1 ? 'host' : 'hosts'} over SSH`;
  const plain = (metric: string, values: readonly number[]) => {
    return { ...medianAtMost({ metric, unit: 'ms', values, limit: 0 }), goal: null, met: null };
  };
  const toCut = {
    metric: `request to cut, ${size}`,
    unit: 'ms',
    values: later.map(({ toCutMs }) => toCutMs),
  };
  const request = later.map(({ stepsMs }) => stepsMs.get('connect') ?? 0);
  return [
    hostCount === goalHosts
      ? medianAtMost({ ...toCut, limit: toCutLimitMs })
      : plain(toCut.metric, toCut.values),
    plain(`of it, the request, ${size}`, request),
    ...steps.map(({ step, what }) =>
      plain(
        `of it, ${what}, ${size}`,
        later.map((course) => lengthOf(course, step)),
      ),
    ),
    plain(`the first time, with connecting, ${size}`, [first.toCutMs]),
  ];
}

function lengthOf({ stepsMs, toCutMs }: Course, step: string): number {
  const next = steps[steps.findIndex((one) => one.step === step) + 1]?.step ?? '';
  const endMs = stepsMs.get(next) ?? toCutMs;
  return endMs - (stepsMs.get(step) ?? endMs);
}
