import { InvalidArgumentError, type Command } from 'commander';

import { forkResult, type ForkResult } from '../../protocol/fork.ts';
import type { SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { findSnapshot } from '../snapshot-reference.ts';
import { formatTable } from '../table.ts';
import { formatCount, formatDuration } from '../units.ts';
import { formatWarnings } from '../views/warnings.ts';

interface ForkOptions extends SessionOptions {
  readonly count: number;
  readonly name?: string;
  readonly verify: boolean;
  readonly paused?: boolean;
}

export function addForkCommand(program: Command, shell: Shell): void {
  remote(program.command('fork <snapshot>'))
    .description('run copies of a whole experiment, each isolated from all others')
    .option('--count <n>', 'how many', parseCount, 1)
    .option('--name <prefix>', 'their names begin with this; EXPERIMENT-fork if left out')
    .option('--no-verify', 'do not check the checksums of RAM')
    .option('--paused', 'leave them loaded and standing; `staghorn experiment resume` runs one at once')
    .action(
      withSession(shell, async (session, options: ForkOptions, reference: string) => {
        const { count, name, verify, paused = false } = options;
        const { id } = await findSnapshot(session, reference);
        const ended = await session.run('POST', `/v1/snapshots/${id}/forks`, { count, name, verify, paused });
        const result = forkResult.parse(ended.result);
        session.print(result, () => describeForks(result, paused));
      }),
    );
}

function parseCount(text: string): number {
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new InvalidArgumentError('a number from 1');
}

function describeForks({ snapshot, forks, durationMs, warnings }: ForkResult, paused: boolean): string {
  const rows = forks.map(({ experiment, vms, durationMs: ms, framesDelivered }) => [
    experiment,
    vms.map(({ name }) => name).join(','),
    formatDuration(ms * 1e6),
    framesDelivered,
  ]);
  const head = `forked ${snapshot}: ${formatCount(forks.length, 'fork')} in ${formatDuration(durationMs * 1e6)}`;
  const all = [...new Set([...warnings, ...forks.flatMap((fork) => fork.warnings)])];
  const ready = paused ? 'STANDING AFTER' : 'RUNNING AFTER';
  return `${head}\n${formatTable(['EXPERIMENT', 'VMS', ready, 'FRAMES'], rows)}${formatWarnings(all)}`;
}
