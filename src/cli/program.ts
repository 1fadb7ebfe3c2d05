import { readFileSync } from 'node:fs';
import { Command } from 'commander';

import { addAgentCommand } from './commands/agent.ts';
import { addArchiveCommands } from './commands/archives.ts';
import { addExperimentCommands } from './commands/experiment.ts';
import { addForkCommand } from './commands/fork.ts';
import { addFramesCommand } from './commands/frames.ts';
import { addOperationCommands } from './commands/operations.ts';
import { addRestoreCommand } from './commands/restore.ts';
import { addRetentionCommands } from './commands/retention.ts';
import { addServeCommand } from './commands/serve.ts';
import { addSnapshotCommands } from './commands/snapshot.ts';
import { fail } from './failure.ts';
import { addLabCommands } from './lab.ts';
import type { Parts } from './parts.ts';
import type { Shell } from './shell.ts';
import type { Terminal } from './terminal.ts';

/** Runs one command line (without the program's name) and gives its exit code. Throws nothing. */
export async function runCli(argv: readonly string[], terminal: Terminal, parts: Parts): Promise<number> {
  const program = buildProgram({ terminal, parts });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return 0;
  } catch (error) {
    return fail(terminal, error, argv.includes('--json'));
  }
}

function buildProgram(shell: Shell): Command {
  const { stdout, stderr } = shell.terminal;
  const program = new Command('staghorn')
    .description('Stops time in an emulated distributed system, saves it, and brings it back.')
    .version(version(), '-V, --version')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => stdout.write(text),
      writeErr: (text) => stderr.write(text),
      // The error is told by fail(), like all others.
      outputError: () => undefined,
    });
  addServeCommand(program, shell);
  addAgentCommand(program, shell);
  addLabCommands(program, shell);
  addExperimentCommands(program, shell);
  addSnapshotCommands(program, shell);
  addRetentionCommands(program, shell);
  addArchiveCommands(program, shell);
  addRestoreCommand(program, shell);
  addForkCommand(program, shell);
  addFramesCommand(program, shell);
  addOperationCommands(program, shell);
  return program;
}

/** That of package.json: src/cli and dist/cli are equally deep. */
function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
