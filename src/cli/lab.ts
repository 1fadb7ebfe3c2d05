import type { Command } from 'commander';

import type { LabState } from './parts.ts';
import { progressView } from './progress-view.ts';
import { printResult } from './session.ts';
import type { Shell } from './shell.ts';
import { formatTable } from './table.ts';
import { formatCount } from './units.ts';

interface LabOptions {
  readonly json?: boolean;
}

/** `staghorn lab`: the test bed on this machine; it needs root and no server. */
export function addLabCommands(program: Command, shell: Shell): void {
  const group = program
    .command('lab')
    .description('a test bed on this machine: hosts, switches and VMs from a file');
  const command = (usage: string, description: string) =>
    group.command(usage).description(description).option('--json', 'one JSON document on stdout');
  command('up <file>', 'bring a lab up, until every guest answers').action(
    async (file: string, options: LabOptions) => up(shell, file, options),
  );
  command('status <file|name>', 'show what runs of it').action(async (lab: string, options: LabOptions) => {
    const state = await (await shell.parts.loadLab()).status(lab);
    printResult(shell.terminal, options.json === true, state, () => describeLab(state));
  });
  command('down <file|name>', 'remove all of it').action(async (lab: string, options: LabOptions) => {
    const wasThere = await (await shell.parts.loadLab()).down(lab);
    printResult(shell.terminal, options.json === true, { lab, wasThere }, () =>
      wasThere ? `${lab} is down\n` : `${lab} was not up\n`,
    );
  });
}

async function up({ terminal, parts }: Shell, file: string, { json = false }: LabOptions): Promise<void> {
  const tools = await parts.loadLab();
  const view = progressView(terminal, { quiet: json });
  const stop = new AbortController();
  const stopListening = terminal.onSignal(['SIGINT', 'SIGTERM'], () => {
    view.note('staghorn: taking down what is up of it');
    stop.abort();
  });
  try {
    const lab = await tools.up(file, {
      signal: stop.signal,
      onProgress: ({ step, detail }) => {
        view.update({ step, message: detail });
      },
    });
    view.close();
    printResult(terminal, json, lab, () => {
      const what = `${formatCount(lab.hosts.length, 'host')}, ${formatCount(lab.vms.length, 'VM')}`;
      return `${lab.name} is up: ${what}\nnext: staghorn experiment add ${lab.experimentFile}\n`;
    });
  } finally {
    stopListening();
    view.close();
  }
}

function describeLab({ name, state, hosts, vms, shaped }: LabState): string {
  const rows = [
    ...hosts.map((host) => [host.name, '-', host.address, host.pid ?? '-']),
    ...vms.map((vm) => [vm.host, vm.name, '-', vm.pid ?? '-']),
  ];
  const table = formatTable(['HOST', 'VM', 'ADDRESS', 'PID'], rows);
  const shapes = shaped.map(({ host, device, towards, shape, inPlace }) => [
    ...[host, device, towards, inPlace ? shape : `${shape} (not in place)`],
  ]);
  const shaping =
    shapes.length === 0 ? '' : `\n${formatTable(['HOST', 'DEVICE', 'TOWARDS', 'SHAPE'], shapes)}`;
  return `${name} is ${state}\n\n${table}${shaping}`;
}
