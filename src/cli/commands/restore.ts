import type { Command } from 'commander';
import { z } from 'zod';

import { StaghornError } from '../../errors/index.ts';
import {
  experimentVm,
  restoreResult,
  type Operation,
  type RestoreInput,
  type Snapshot,
} from '../../protocol/resources.ts';
import { confirm } from '../question.ts';
import type { Session, SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { findSnapshot } from '../snapshot-reference.ts';
import { formatCount, formatDuration } from '../units.ts';
import { formatWarnings } from '../views/warnings.ts';

interface RestoreOptions extends SessionOptions {
  readonly force?: boolean;
  readonly verify: boolean;
}

export function addRestoreCommand(program: Command, shell: Shell): void {
  remote(program.command('restore <snapshot>'))
    .description('bring the VMs of a snapshot back, with their frames in flight')
    .option('--force', 'destroy VMs of the experiment that are still running, without asking')
    .option('--no-verify', 'do not check the checksums of RAM first')
    .action(
      withSession(shell, async (session, options: RestoreOptions, reference: string) => {
        const found = await findSnapshot(session, reference);
        const ended = await restore(session, found, {
          replace: options.force === true,
          verify: options.verify,
          paused: false,
          clock: 'hidden',
          dryRun: false,
        });
        const result = restoreResult.parse(ended.result);
        session.print(result, () => {
          const { vms, durationMs, framesDelivered } = result;
          const frames = formatCount(framesDelivered, 'frame');
          return `restored ${found.id}: ${formatCount(vms, 'VM')} in ${formatDuration(durationMs * 1e6)}, ${frames} delivered\n${formatWarnings(result.warnings)}`;
        });
      }),
    );
}

/** Where running VMs are in the way, a person is asked and a program is told what to do. */
async function restore(
  session: Session,
  { id, experiment }: Snapshot,
  input: RestoreInput,
): Promise<Operation> {
  const path = `/v1/snapshots/${id}/restore`;
  try {
    return await session.run('POST', path, input);
  } catch (error) {
    if (input.replace || !(error instanceof StaghornError) || error.code !== 'conflict') throw error;
    const running = await runningVms(session, experiment);
    if (running === 0) throw error;
    const doomed = `${formatCount(running, 'VM')} of ${experiment} ${running === 1 ? 'is' : 'are'} running`;
    if (!session.terminal.interactive || session.isJson) {
      throw new StaghornError('conflict', `${doomed}; --force destroys them`, { cause: error });
    }
    if (!(await confirm(session.terminal, `${doomed} and will be destroyed. Restore?`))) {
      throw new StaghornError('cancelled', 'nothing was changed', { cause: error });
    }
    return session.run('POST', path, { ...input, replace: true });
  }
}

async function runningVms(session: Session, experiment: string): Promise<number> {
  const vms = await session.get(
    `/v1/experiments/${encodeURIComponent(experiment)}/vms`,
    z.array(experimentVm),
  );
  return vms.length;
}
