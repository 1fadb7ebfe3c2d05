import type { Command } from 'commander';
import { z } from 'zod';

import { resumeResult } from '../../protocol/fork.ts';
import { experiment, experimentPort, experimentVm } from '../../protocol/resources.ts';
import { parseHost, readExperimentFile } from '../experiment-file.ts';
import type { SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { formatCount, formatDuration } from '../units.ts';
import { describeExperiment, listExperiments } from '../views/experiments.ts';

const at = (name: string, rest = '') => `/v1/experiments/${encodeURIComponent(name)}${rest}`;

export function addExperimentCommands(program: Command, shell: Shell): void {
  const group = program
    .command('experiment')
    .description('experiments: emulated systems on one or many hosts');
  addCommand(group, shell);
  showCommands(group, shell);
  changeCommands(group, shell);
}

interface AddOptions extends SessionOptions {
  readonly host?: string[];
  readonly sshConfig?: string;
  readonly description?: string;
  readonly externalFrames?: string;
  readonly frameBuffer?: string;
}

function addCommand(group: Command, shell: Shell): void {
  remote(group.command('add <file|name>'))
    .description('add one, from a JSON or YAML file ("-": stdin), or by its name and --host')
    .option('--host <host...>', 'hosts of the experiment: [USER@]HOST[:PORT], as ssh_config knows them')
    .option('--ssh-config <file>', 'ssh_config file on the server, for all --host')
    .option('--description <text>')
    .option(
      '--external-frames <what>',
      'frames from external ports while time stands still: hold, drop, pass',
    )
    .option('--frame-buffer <bytes>', 'room for held frames on each host, a power of two from 1 MiB to 1 GiB')
    .action(
      withSession(shell, async (session, options: AddOptions, source: string) => {
        const body =
          options.host === undefined
            ? withOptions(await readExperimentFile(source, session.terminal), options)
            : withOptions(fromOptions(source, options), options);
        const added = await session.client.json('POST', '/v1/experiments', experiment, { body });
        session.print(added, () => `added ${added.name}: ${formatCount(added.hosts.length, 'host')}\n`);
      }),
    );
}

function fromOptions(name: string, { host = [], sshConfig, description }: AddOptions) {
  const hosts = host.map((given) => ({
    ...parseHost(given),
    ...(sshConfig === undefined ? {} : { sshConfig }),
  }));
  return { name, ...(description === undefined ? {} : { description }), hosts };
}

/** What is said on the command line counts above what the file says. */
function withOptions(definition: unknown, { externalFrames, frameBuffer }: AddOptions): unknown {
  if (typeof definition !== 'object' || definition === null) return definition;
  return {
    ...definition,
    ...(externalFrames === undefined ? {} : { externalFrames }),
    ...(frameBuffer === undefined ? {} : { frameBufferBytes: Number(frameBuffer) }),
  };
}

function showCommands(group: Command, shell: Shell): void {
  remote(group.command('list'))
    .description('list all')
    .action(
      withSession(shell, async (session) => {
        const all = await session.get('/v1/experiments', z.array(experiment));
        session.print(all, () => listExperiments(all));
      }),
    );
  remote(group.command('show <name>'))
    .description('show one with its VMs and ports, as its hosts have them now')
    .action(
      withSession(shell, async (session, _options: SessionOptions, name: string) => {
        const shown = await session.get(at(name), experiment);
        const [vms, ports] = await Promise.all([
          session.get(at(name, '/vms'), z.array(experimentVm)),
          session.get(at(name, '/ports'), z.array(experimentPort)),
        ]);
        session.print({ experiment: shown, vms, ports }, () => describeExperiment(shown, vms, ports));
      }),
    );
}

interface RemoveOptions extends SessionOptions {
  readonly destroy?: boolean;
}

function changeCommands(group: Command, shell: Shell): void {
  remote(group.command('remove <name>'))
    .description('forget one that has no snapshots; its VMs run on')
    .option('--destroy', 'of a fork: end its VMs, and remove its bridges, taps and files')
    .action(
      withSession(shell, async (session, options: RemoveOptions, name: string) => {
        await session.client.send('DELETE', at(name, options.destroy === true ? '?destroy=true' : ''));
        session.print({ removed: name }, () => `removed ${name}\n`);
      }),
    );
  for (const [verb, done] of [
    ['pause', 'time stands still in'],
    ['resume', 'time goes on in'],
  ] as const) {
    remote(group.command(`${verb} <name>`))
      .description(verb === 'pause' ? 'stop time in one; frames in flight are held' : 'let time go on in one')
      .action(
        withSession(shell, async (session, _options: SessionOptions, name: string) => {
          const ended = await session.run('POST', at(name, `/${verb}`));
          const resumed = resumeResult.safeParse(ended.result).data;
          const after = resumed === undefined ? '' : `, after ${formatDuration(resumed.durationMs * 1e6)}`;
          session.print(ended, () => `${done} ${name}${after}\n`);
        }),
      );
  }
}
