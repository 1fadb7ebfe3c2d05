import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { formatFields } from '../cli/table.ts';
import { formatBytes, formatDuration } from '../cli/units.ts';
import { errorRegistry, StaghornError } from '../errors/index.ts';
import { readLabFile } from '../lab/index.ts';
import { runDemo, type DemoReport } from './demo.ts';

/** `npm run demo [-- --json] [-- --lab FILE]`: exits with 1 if a guest noticed anything. */
async function main(): Promise<number> {
  const { values } = parseArgs({ options: { json: { type: 'boolean' }, lab: { type: 'string' } } });
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, () => stop.abort(new StaghornError('cancelled', `stopped by ${name}`)));
  }
  const startedAtMs = performance.now();
  const onStep = (text: string) => {
    process.stderr.write(
      `[${((performance.now() - startedAtMs) / 1000).toFixed(1).padStart(5)} s] ${text}\n`,
    );
  };
  const labFile = await readLabFile(
    values.lab ?? fileURLToPath(new URL('../../examples/two-hosts.yaml', import.meta.url)),
  );
  const report = await runDemo({ labFile, onStep, signal: stop.signal });
  process.stdout.write(`\n${describe(report)}\n`);
  if (values.json === true) process.stdout.write(`${JSON.stringify(report)}\n`);
  return report.ok ? 0 : 1;
}

function describe({ ok, experiment, snapshot, restore, guests }: DemoReport): string {
  const { min, max } = snapshot.pauseNs;
  const fields: [string, string][] = [
    ['experiment', `${experiment.vms} VMs on ${experiment.hosts} hosts`],
    ['snapshot', `${snapshot.id}, method ${snapshot.method}, ${formatBytes(snapshot.bytes)}`],
    ['stopped within', formatDuration(snapshot.skewNs)],
    ['paused for', `${formatDuration(min)} to ${formatDuration(max)}`],
    [
      'frames in flight',
      `${snapshot.framesInFlight} kept, ${restore.framesDelivered} delivered after the restore`,
    ],
    ['restored in', formatDuration(restore.durationMs * 1e6)],
    [
      'datagrams',
      `${guests.sent} sent, ${guests.lost} lost, ${guests.duplicated} duplicated, ${guests.reordered} reordered`,
    ],
    [
      'TCP',
      `${formatBytes(guests.tcpBytes)}, ${guests.tcpMismatches} mismatches, ${guests.tcpRetransmissions} retransmissions`,
    ],
    [
      'largest gap',
      `${formatDuration(guests.largestGapNs)} (before: ${formatDuration(guests.largestGapBeforeNs)})`,
    ],
    ['clock jump', formatDuration(guests.clockJumpNs)],
    ['verdict', ok ? 'the guests noticed nothing' : 'THE GUESTS NOTICED SOMETHING'],
  ];
  return formatFields(fields);
}

main().then(
  (code) => process.exit(code),
  (error: unknown) => {
    const known = error instanceof StaghornError;
    process.stderr.write(
      `demo: ${known ? error.message : String(error instanceof Error ? error.stack : error)}\n`,
    );
    process.exit(known ? errorRegistry[error.code].exit : 1);
  },
);
