import type { Command } from 'commander';

import type { Parts } from './parts.ts';
import { openSession, type Session, type SessionOptions } from './session.ts';
import type { Terminal } from './terminal.ts';

/** What every file of commands is given. */
export interface Shell {
  readonly terminal: Terminal;
  readonly parts: Parts;
}

/** Adds the options that all commands have that talk to a server. */
export function remote(command: Command): Command {
  return command
    .option('--url <url>', 'where the server is (STAGHORN_URL; else the one on this machine)')
    .option('--token-file <file>', 'file with the bearer token (or STAGHORN_TOKEN)')
    .option('--json', 'one JSON document on stdout; errors as problem details in JSON on stderr');
}

/** The action of a command that talks to a server: arguments, then its options. */
export function withSession<Arguments extends unknown[], Options extends SessionOptions>(
  { terminal }: Shell,
  action: (session: Session, options: Options, ...given: Arguments) => Promise<void>,
): (this: Command, ...given: unknown[]) => Promise<void> {
  return async function (this: Command) {
    const options = this.opts<Options>();
    const session = await openSession(terminal, options);
    await action(session, options, ...(this.processedArgs as Arguments));
  };
}
