import { parseArgs } from 'node:util';

import { formatTable } from '../cli/table.ts';
import { messageOf } from '../errors/index.ts';
import type { Bench } from './bench.ts';
import { reportOf, resultsDirectory, saveReport, writePerformancePage } from './report.ts';
import { busBench } from './bus/bus-bench.ts';
import { forkBench } from './fork/fork-bench.ts';
import { gateBench } from './gate/gate-bench.ts';
import { quiesceBench } from './quiesce/quiesce-bench.ts';
import { saveBench } from './save/save-bench.ts';
import { restoreBench } from './restore/restore-bench.ts';
import { scaleBench } from './scale/scale-bench.ts';
import { snapshotBench } from './snapshot-bench.ts';
import { timerBench } from './timer/timer-bench.ts';

const benches: Readonly<Record<string, Bench>> = {
  bus: busBench,
  fork: forkBench,
  gate: gateBench,
  quiesce: quiesceBench,
  restore: restoreBench,
  save: saveBench,
  scale: scaleBench,
  snapshot: snapshotBench,
  timer: timerBench,
};

/** `npm run bench -- NAME [--quick] [--json]`, and `npm run bench -- report`, which writes docs/performance.md. */
async function main(): Promise<number> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: { json: { type: 'boolean' }, quick: { type: 'boolean' } },
  });
  const name = positionals[0] ?? '';
  if (name === 'report') {
    process.stdout.write(`docs/performance.md: ${writePerformancePage().join(', ')}\n`);
    return 0;
  }
  const bench = Object.hasOwn(benches, name) ? benches[name] : undefined;
  if (bench === undefined) {
    process.stderr.write(`bench: name one of: ${[...Object.keys(benches), 'report'].join(', ')}\n`);
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
  const report = reportOf(name, values.quick === true, results);
  saveReport(report);
  onStep(`written: ${resultsDirectory}/${name}.json and ${name}.svg`);
  if (values.json === true) process.stdout.write(`${JSON.stringify(report)}\n`);
  return 0;
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    process.stderr.write(`bench: ${messageOf(error)}\n`);
    process.exit(1);
  },
);
