import { cpus, release, totalmem } from 'node:os';
import { parseArgs } from 'node:util';

import { formatTable } from '../cli/table.ts';
import { messageOf } from '../errors/index.ts';
import type { Bench } from './bench.ts';
import { forkBench } from './fork/fork-bench.ts';
import { gateBench } from './gate/gate-bench.ts';
import { snapshotBench } from './snapshot-bench.ts';

const benches: Readonly<Record<string, Bench>> = {
  fork: forkBench,
  gate: gateBench,
  snapshot: snapshotBench,
};

/** `npm run bench -- NAME [--quick] [--json]`. */
async function main(): Promise<number> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { json: { type: 'boolean' }, quick: { type: 'boolean' } },
  });
  const name = positionals[0] ?? '';
  const bench = Object.hasOwn(benches, name) ? benches[name] : undefined;
  if (bench === undefined) {
    process.stderr.write(`bench: name one of: ${Object.keys(benches).join(', ')}\n`);
    return 2;
  }
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  const onStep = (text: string) => process.stderr.write(`${name}: ${text}\n`);
  const results = await bench({ quick: values.quick === true, onStep, signal: stop.signal });
  const rows = results.map(({ metric, value, unit, goal, met, reference }) => [
    metric,
    `${value} ${unit}`,
    goal ?? '',
    met === null ? '' : met ? 'met' : 'NOT met',
    reference ?? '',
  ]);
  process.stdout.write(`${formatTable(['METRIC', 'MEDIAN', 'GOAL', '', 'SPREAD'], rows)}\n`);
  const machine = {
    cpu: cpus()[0]?.model ?? '',
    cores: cpus().length,
    memoryBytes: totalmem(),
    kernel: release(),
  };
  if (values.json === true) process.stdout.write(`${JSON.stringify({ bench: name, machine, results })}\n`);
  return 0;
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`bench: ${messageOf(error)}\n`);
    process.exit(1);
  },
);
