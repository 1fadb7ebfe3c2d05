import { Option, type Command } from 'commander';
import { z } from 'zod';

import { StaghornError } from '../../errors/index.ts';
import {
  experimentVm,
  restoreClock,
  restoreResult,
  type Operation,
  type RestoreClock,
  type RestoreInput,
  type Snapshot,
} from '../../protocol/resources.ts';
import { confirm } from '../question.ts';
import type { Session, SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { findSnapshot } from '../snapshot-reference.ts';
import { formatCount } from '../units.ts';
import { describeRestore } from '../views/restores.ts';

interface RestoreOptions extends SessionOptions {
  readonly force?: boolean;
  readonly verify: boolean;
  readonly vm?: readonly string[];
  readonly map?: readonly string[];
  readonly paused?: boolean;
  readonly clock: RestoreClock;
  readonly dryRun?: boolean;
}

export function addRestoreCommand(program: Command, shell: Shell): void {
  remote(program.command('restore <snapshot>'))
    .description('bring the VMs of a snapshot back, with their frames in flight')
    .option('--force', 'destroy VMs of the experiment that are still running, without asking')
    .option('--no-verify', 'do not check the checksums of RAM first')
    .option('--vm <name...>', 'only these VMs')
    .option('--map <host=host...>', 'which host of the experiment takes what which host of the snapshot had')
    .option('--paused', 'leave time stopped; `staghorn experiment resume` lets it go on')
    .addOption(
      new Option('--clock <mode>', 'hide the time that has passed from the guests, or set them to now')
        .choices(restoreClock.options)
        .default('hidden'),
    )
    .option('--dry-run', 'check everything, touch nothing')
    .action(
      withSession(shell, async (session, options: RestoreOptions, reference: string) => {
        const input = inputOf(options);
        const found = await findSnapshot(session, reference);
        const ended = await restore(session, found, input);
        const result = restoreResult.parse(ended.result);
        session.print(result, () => describeRestore(found, result));
      }),
    );
}

/** @throws StaghornError 'invalid-input' */
function inputOf(options: RestoreOptions): RestoreInput {
  const { vm: vms, map } = options;
  return {
    replace: options.force === true,
    verify: options.verify,
    ...(vms === undefined ? {} : { vms: [...vms] }),
    ...(map === undefined ? {} : { map: Object.fromEntries(map.map(parsePair)) }),
    paused: options.paused === true,
    clock: options.clock,
    dryRun: options.dryRun === true,
  };
}

function parsePair(text: string): [string, string] {
  const [from, to, ...rest] = text.split('=');
  if (from && to && rest.length === 0) return [from, to];
  throw new StaghornError('invalid-input', `--map ${text}: write it as HOST_OF_THE_SNAPSHOT=HOST`);
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
