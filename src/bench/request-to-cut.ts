import { readFile } from 'node:fs/promises';

import { followOperation } from '../cli/follow.ts';
import { OwnServer } from '../demo/server.ts';
import { labDown, labUp, parseLabFile, type Lab } from '../lab/index.ts';
import { experiment, operation, snapshot } from '../protocol/resources.ts';
import { medianAtMost, type BenchOptions, type BenchResult } from './bench.ts';

const hosts = ['h1', 'h2', 'h3', 'h4'];
const memoryMiB = 96;
const rounds = { full: 20, quick: 5 };
const toCutLimitMs = 100;

/** When each step of a snapshot began, and when its last VM stood still, all in milliseconds since the request. */
interface Course {
  readonly stepsMs: ReadonlyMap<string, number>;
  readonly toCutMs: number;
}

/** From the request of a snapshot to the moment that time stands still: four hosts over SSH, connections up. */
export async function requestToCut({ quick, onStep, signal }: BenchOptions): Promise<BenchResult[]> {
  onStep(`${hosts.length} hosts, request to cut`);
  const lab = await labUp(labFile(), { signal });
  try {
    const server = await OwnServer.start();
    try {
      return describe(await measure(lab, server, quick ? rounds.quick : rounds.full, signal));
    } finally {
      await server.stop();
    }
  } finally {
    await labDown(lab.name);
  }
}

function labFile() {
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

async function measure(lab: Lab, server: OwnServer, count: number, signal: AbortSignal): Promise<Course[]> {
  const body: unknown = JSON.parse(await readFile(lab.experimentFile, 'utf8'));
  await server.client.json('POST', '/v1/experiments', experiment, { body });
  // The first one opens connections and deploys agents; users keep both.
  await takeOne(lab, server, signal);
  const courses: Course[] = [];
  while (courses.length < count) courses.push(await takeOne(lab, server, signal));
  return courses;
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
const steps = ['connect', 'arm', 'probe', 'listen', 'schedule', 'cut'];

function describe(courses: readonly Course[]): BenchResult[] {
  const size = `${hosts.length} hosts over SSH`;
  const lengths = steps.map((step, place) => {
    const values = courses.map(({ stepsMs, toCutMs }) => {
      const endMs = stepsMs.get(steps[place + 1] ?? '') ?? toCutMs;
      return endMs - (stepsMs.get(step) ?? endMs);
    });
    const metric = `of it, ${step}, ${size}`;
    return { ...medianAtMost({ metric, unit: 'ms', values, limit: 0 }), goal: null, met: null };
  });
  const values = courses.map(({ toCutMs }) => toCutMs);
  const metric = `request to cut, ${size}`;
  return [medianAtMost({ metric, unit: 'ms', values, limit: toCutLimitMs }), ...lengths];
}
