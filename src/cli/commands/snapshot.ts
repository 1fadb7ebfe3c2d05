import type { Command } from 'commander';
import { z } from 'zod';

import { StaghornError } from '../../errors/index.ts';
import { snapshot, verifyResult } from '../../protocol/resources.ts';
import { methodChoice } from '../../protocol/vm.ts';
import type { SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { findSnapshot } from '../snapshot-reference.ts';
import { formatBytes } from '../units.ts';
import { describeSnapshot, listSnapshots } from '../views/snapshots.ts';

interface TakeOptions extends SessionOptions {
  readonly name?: string;
  readonly description?: string;
  readonly method?: string;
}

export function addSnapshotCommands(program: Command, shell: Shell): void {
  takeCommand(program, shell);
  listCommands(program, shell);
  careCommands(program, shell);
}

function takeCommand(program: Command, shell: Shell): void {
  remote(program.command('snapshot <experiment>'))
    .description('take a snapshot of an experiment')
    .option('--name <name>', 'a name for it')
    .option('--description <text>')
    .option('--method <method>', `how RAM is saved: ${methodChoice.options.join(', ')}`)
    .action(
      withSession(shell, async (session, { name, description, method }: TakeOptions, experiment: string) => {
        const path = `/v1/experiments/${encodeURIComponent(experiment)}/snapshots`;
        const ended = await session.run('POST', path, { name, description, method });
        const taken = expected(snapshot, ended.result);
        session.print(taken, () => describeSnapshot(taken));
      }),
    );
}

function listCommands(program: Command, shell: Shell): void {
  remote(program.command('snapshots [experiment]'))
    .description('list the snapshots, all or those of an experiment')
    .action(
      withSession(shell, async (session, _options: SessionOptions, experiment: string | undefined) => {
        const path =
          experiment === undefined
            ? '/v1/snapshots'
            : `/v1/experiments/${encodeURIComponent(experiment)}/snapshots`;
        const all = await session.get(path, z.array(snapshot));
        session.print(all, () => listSnapshots(all));
      }),
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

function careCommands(program: Command, shell: Shell): void {
  remote(program.command('verify <snapshot>'))
    .description('recompute the checksums of a snapshot')
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
function expected<T extends z.ZodType>(schema: T, result: unknown): z.output<T> {
  const parsed = schema.safeParse(result);
  if (parsed.success) return parsed.data;
  throw new StaghornError('protocol-violation', 'the operation ended without its result', {
    cause: parsed.error,
  });
}
