import { hostname } from 'node:os';
import type { Command } from 'commander';

import { StaghornError } from '../../errors/index.ts';
import { resourceName } from '../../protocol/names.ts';
import type { Shell } from '../shell.ts';

interface AgentOptions {
  readonly broker: string;
  readonly host: string;
  readonly store?: string;
}

export function addAgentCommand(program: Command, { terminal, parts }: Shell): void {
  program
    .command('agent')
    .description("run this host's agent at the site's message broker, until SIGTERM or Ctrl-C")
    .requiredOption('--broker <file>', 'how to get to the broker (YAML, readable by its owner alone)')
    .option('--host <name>', 'name under which experiments know this host', hostname())
    .option('--store <dir>', 'where snapshots are kept')
    .action(async ({ broker, host, store }: AgentOptions) => {
      if (!resourceName.safeParse(host).success) {
        throw new StaghornError(
          'invalid-input',
          `"${host}" cannot be the name of a host; give one by --host`,
        );
      }
      const stop = new AbortController();
      const stopListening = terminal.onSignal(['SIGINT', 'SIGTERM'], () => stop.abort());
      try {
        const args = ['--broker', broker, '--host', host, ...(store === undefined ? [] : ['--store', store])];
        const code = await parts.runAgent(args, stop.signal);
        if (code !== 0) throw new StaghornError('internal', `the agent ended with code ${code}`);
      } finally {
        stopListening();
      }
    });
}
