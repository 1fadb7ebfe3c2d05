import type { Command } from 'commander';
import { z } from 'zod';

import { StaghornError } from '../../errors/index.ts';
import { compression, experiment, snapshot, verifyResult } from '../../protocol/resources.ts';
import { rolling } from '../../protocol/rolling.ts';
import { methodChoice } from '../../protocol/vm.ts';
import { collect, collectLabel, parseCount, parseSeconds } from '../label-options.ts';
import type { Session, SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { findSnapshot } from '../snapshot-reference.ts';
import { formatBytes } from '../units.ts';
import { describeRolling } from '../views/rolling.ts';
import { snapshotTree } from '../views/snapshot-tree.ts';
import { describeSnapshot, listSnapshots } from '../views/snapshots.ts';

interface TakeOptions extends SessionOptions {
  readonly name?: string;
  readonly description?: string;
  readonly method?: string;
  readonly label?: Record<string, string>;
  readonly incremental: boolean;
  readonly compression?: string;
  readonly compressionLevel?: number;
  readonly maxBandwidth?: number;
  readonly every?: number;
  readonly keep?: number;
}

export function addSnapshotCommands(program: Command, shell: Shell): void {
  takeCommand(program, shell);
  listCommands(program, shell);
  editCommand(program, shell);
  careCommands(program, shell);
}

function takeCommand(program: Command, shell: Shell): void {
  remote(program.command('snapshot <experiment>'))
    .description('take a snapshot of an experiment, or take them again and again')
    .option('--name <name>', 'a name for it')
    .option('--description <text>')
    .option('--label <key=value>', 'a label to find it by; may be given several times', collectLabel)
    .option('--method <method>', `how RAM is saved: ${methodChoice.options.join(', ')}`)
    .option('--no-incremental', 'store all RAM, not only what differs from the moment before')
    .option('--compression <kind>', `of stored RAM: ${compression.options.join(', ')}`)
    .option('--compression-level <level>', 'of zstd, 1 to 19', parseCount)
    .option(
      '--max-bandwidth <bytes>',
      'a second, that each host writes while the experiment runs',
      parseCount,
    )
    .option('--every <time>', 'take one every 90s, 5m, 2h …, and keep the last ones', parseSeconds)
    .option('--keep <count>', 'with --every: how many are kept', parseCount)
    .action(
      withSession(shell, async (session, options: TakeOptions, experiment: string) => {
        const { name, description, method, label: labels, every, keep } = options;
        if (every !== undefined) return roll(session, experiment, options);
        if (keep !== undefined) throw new StaghornError('invalid-input', '--keep is for --every');
        const path = `/v1/experiments/${encodeURIComponent(experiment)}/snapshots`;
        const storage = storageOf(options);
        const ended = await session.run('POST', path, { name, description, method, labels, ...storage });
        const taken = expected(snapshot, ended.result);
        session.print(taken, () => describeSnapshot(taken));
      }),
    );
}

function storageOf({ incremental, compression: kind, compressionLevel, maxBandwidth }: TakeOptions) {
  return { ...(incremental ? {} : { incremental }), compression: kind, compressionLevel, maxBandwidth };
}

async function roll(session: Session, experiment: string, options: TakeOptions): Promise<void> {
  const { name, description, method, label: labels, every: everySeconds, keep } = options;
  if (name !== undefined || keep === undefined) {
    throw new StaghornError(
      'invalid-input',
      'with --every goes --keep, and no --name: a name is for one snapshot',
    );
  }
  const path = `/v1/experiments/${encodeURIComponent(experiment)}/rolling`;
  const body = { everySeconds, keep, description, method, labels };
  const plan = await session.client.json('PUT', path, rolling, { body });
  session.print(plan, () => describeRolling(plan));
}

interface ListOptions extends SessionOptions {
  readonly label?: string[];
  readonly name?: string;
  readonly tree?: boolean;
}

function listCommands(program: Command, shell: Shell): void {
  remote(program.command('snapshots [experiment]'))
    .description('list the snapshots, all or those of an experiment')
    .option('--label <key=value>', 'only those with this label; KEY alone for any value', collect)
    .option('--name <pattern>', 'only those with such a name; * stands for any characters')
    .option('--tree', 'show which came from which')
    .action(
      withSession(
        shell,
        async (session, { label = [], name, tree }: ListOptions, given: string | undefined) => {
          const query = new URLSearchParams(label.map((each): [string, string] => ['label', each]));
          if (name !== undefined) query.set('name', name);
          if (given !== undefined) query.set('experiment', given);
          const all = await session.get(
            `/v1/snapshots${query.size === 0 ? '' : `?${query.toString()}`}`,
            z.array(snapshot),
          );
          if (all.length === 0 && given !== undefined) await session.get(pathOf(given), experiment);
          if (tree !== true || session.isJson) return session.print(all, () => listSnapshots(all));
          const experiments = await session.get('/v1/experiments', z.array(experiment));
          const moments = new Set(experiments.map(({ moment }) => moment));
          session.print(all, () => snapshotTree(all, (one) => moments.has(one.id)));
        },
      ),
    );
  remote(program.command('show <snapshot>'))
    .description('show a snapshot: an id, the beginning of one, NAME or EXPERIMENT/NAME')
    .action(
      withSession(shell, async (session, _options: SessionOptions, reference: string) => {
        const shown = await findSnapshot(session, reference);
        session.print(shown, () => describeSnapshot(shown));
      }),
    );
}

const pathOf = (name: string) => `/v1/experiments/${encodeURIComponent(name)}`;

interface EditOptions extends SessionOptions {
  readonly name?: string | false;
  readonly description?: string;
  readonly label?: Record<string, string>;
  readonly unlabel?: string[];
}

function editCommand(program: Command, shell: Shell): void {
  remote(program.command('edit <snapshot>'))
    .description('change name, description or labels of a snapshot')
    .option('--name <name>')
    .option('--no-name', 'take its name away')
    .option('--description <text>', 'an empty one takes it away')
    .option('--label <key=value>', 'a label to set; may be given several times', collectLabel)
    .option('--unlabel <key>', 'a label to take away; may be given several times', collect)
    .action(
      withSession(shell, async (session, options: EditOptions, reference: string) => {
        const { id } = await findSnapshot(session, reference);
        const { name, description, label = {}, unlabel = [] } = options;
        const body = {
          name: name === false ? null : name,
          description: description === '' ? null : description,
          labels: { ...label, ...Object.fromEntries(unlabel.map((key) => [key, null])) },
        };
        const edited = await session.client.json('PATCH', `/v1/snapshots/${id}`, snapshot, { body });
        session.print(edited, () => describeSnapshot(edited));
      }),
    );
}

function careCommands(program: Command, shell: Shell): void {
  remote(program.command('verify <snapshot>'))
    .description('check a snapshot: its files, their checksums, and whether QEMU loads its device states')
    .action(
      withSession(shell, async (session, _options: SessionOptions, reference: string) => {
        const { id } = await findSnapshot(session, reference);
        const ended = await session.run('POST', `/v1/snapshots/${id}/verify`);
        const result = expected(verifyResult, ended.result);
        session.print(result, () =>
          result.ok ? `${id} is whole: ${formatBytes(result.bytes)} checked\n` : '',
        );
        if (result.ok) return;
        const context = { problems: result.problems };
        throw new StaghornError('snapshot-damaged', `${id} is damaged: ${result.problems.join('; ')}`, {
          context,
        });
      }),
    );
  remote(program.command('delete <snapshot>'))
    .description('delete a snapshot on all hosts')
    .action(
      withSession(shell, async (session, _options: SessionOptions, reference: string) => {
        const { id } = await findSnapshot(session, reference);
        const ended = await session.run('DELETE', `/v1/snapshots/${id}`);
        session.print(ended, () => `deleted ${id}\n`);
      }),
    );
}

/** The result of an operation as what its kind promises. */
export function expected<T extends z.ZodType>(schema: T, result: unknown): z.output<T> {
  const parsed = schema.safeParse(result);
  if (parsed.success) return parsed.data;
  throw new StaghornError('protocol-violation', 'the operation ended without its result', {
    cause: parsed.error,
  });
}
