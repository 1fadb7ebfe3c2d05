import type { Command } from 'commander';
import { z } from 'zod';

import { pruneResult } from '../../protocol/prune.ts';
import { rolling } from '../../protocol/rolling.ts';
import { parseCount } from '../label-options.ts';
import type { SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { formatCount } from '../units.ts';
import { describeRolling, listRolling } from '../views/rolling.ts';

interface PruneOptions extends SessionOptions {
  readonly keepLast?: number;
  readonly keepHourly?: number;
  readonly keepDaily?: number;
  readonly keepWeekly?: number;
  readonly includeKept?: boolean;
  readonly dryRun?: boolean;
}

export function addRetentionCommands(program: Command, shell: Shell): void {
  pruneCommand(program, shell);
  rollingCommand(program, shell);
}

function pruneCommand(program: Command, shell: Shell): void {
  remote(program.command('prune <experiment>'))
    .description('remove the snapshots that no rule keeps; those with a name or a label "keep" stay')
    .option('--keep-last <count>', 'keep the newest ones', parseCount)
    .option('--keep-hourly <count>', 'keep one an hour, of so many hours', parseCount)
    .option('--keep-daily <count>', 'keep one a day, of so many days', parseCount)
    .option('--keep-weekly <count>', 'keep one a week, of so many weeks', parseCount)
    .option('--include-kept', 'remove named ones and those labelled "keep" too')
    .option('--dry-run', 'only say what would be removed')
    .action(
      withSession(shell, async (session, options: PruneOptions, experiment: string) => {
        const { keepLast, keepHourly, keepDaily, keepWeekly, includeKept, dryRun } = options;
        const body = { keepLast, keepHourly, keepDaily, keepWeekly, includeKept, dryRun };
        const ended = await session.run('POST', `${pathOf(experiment)}/prune`, body);
        const result = pruneResult.parse(ended.result);
        session.print(result, () => {
          const lines = result.removed.map((id) => `${dryRun === true ? 'would remove' : 'removed'} ${id}\n`);
          const kept = result.kept.map(
            ({ snapshot, reasons }) => `kept ${snapshot} (${reasons.join(', ')})\n`,
          );
          return `${lines.join('')}${kept.join('')}${formatCount(result.removed.length, 'snapshot')} of ${result.removed.length + result.kept.length} ${dryRun === true ? 'would go' : 'went'}\n`;
        });
      }),
    );
}

function rollingCommand(program: Command, shell: Shell): void {
  remote(program.command('rolling [experiment]'))
    .description('show the rolling snapshots that "snapshot --every" began, all or those of an experiment')
    .option('--stop', 'take no more of them; those that were taken stay')
    .action(
      withSession(
        shell,
        async (session, { stop }: SessionOptions & { stop?: boolean }, experiment?: string) => {
          if (experiment === undefined) {
            const all = await session.get('/v1/rolling', z.array(rolling));
            session.print(all, () => listRolling(all));
            return;
          }
          const path = `${pathOf(experiment)}/rolling`;
          const plan = await session.get(path, rolling);
          if (stop === true) await session.client.send('DELETE', path);
          session.print(plan, () => (stop === true ? `no more of ${experiment}\n` : describeRolling(plan)));
        },
      ),
    );
}

const pathOf = (experiment: string) => `/v1/experiments/${encodeURIComponent(experiment)}`;
