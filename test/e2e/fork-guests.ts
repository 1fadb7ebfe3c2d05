import { join } from 'node:path';

import { Guests, type LogOffsets } from '../../src/demo/guests.ts';
import { judge, readReports, type Judgement, type Lab } from '../../src/lab/index.ts';
import type { ForkResult } from '../../src/protocol/fork.ts';
import { hostPath } from './harness.ts';

export type MadeFork = ForkResult['forks'][number];

/** The number that all names of a fork end in. */
export const numberOf = ({ vms }: MadeFork): string => /\.f(\d+)$/.exec(vms[0]!.name)![1]!;

/** The guests of a fork, as a lab has them: their logs begin with the fork. */
export function asLab(lab: Lab, fork: MadeFork): Lab {
  const root = `/var/lib/staghorn/forks/f${numberOf(fork)}`;
  const vms = fork.vms.map(({ host, name }) => {
    const original = name.replace(/\.f\d+$/, '');
    // The lab's own name of the file: a fork of a fork writes one of that name too.
    const file = `${original.replace(/\.f\d+/g, '')}.serial`;
    return { host, name, serialLog: hostPath(lab, host, join(root, original, file)) };
  });
  return { ...lab, name: fork.experiment, vms };
}

export const guestsOf = (lab: Lab, fork: MadeFork): Guests => new Guests(asLab(lab, fork));

const firstName = (name: string) => name.replaceAll(/\.f\d+/g, '');

/** What the guests of a fork noticed since a moment before the snapshot that it came from. */
export async function judgeFork(
  origin: Lab,
  before: LogOffsets,
  fork: { readonly lab: Lab; readonly made: MadeFork },
): Promise<Judgement> {
  const { vms } = asLab(fork.lab, fork.made);
  return judge(
    await Promise.all(
      vms.map(async ({ name, serialLog }) => {
        const source = origin.vms.find((vm) => firstName(vm.name) === firstName(name))!;
        const earlier = await readReports(source.serialLog, [{ to: before.get(source.name)! }]);
        const reports = [...earlier, ...(await readReports(serialLog, [{}]))];
        return { reports, fromNs: earlier.at(-1)?.uptimeNs ?? 0 };
      }),
    ),
  );
}
