import type { Command } from 'commander';
import { z } from 'zod';

import { StaghornError } from '../../errors/index.ts';
import { operation } from '../../protocol/resources.ts';
import type { SessionOptions } from '../session.ts';
import { remote, withSession, type Shell } from '../shell.ts';
import { listOperations } from '../views/operations.ts';

export function addOperationCommands(program: Command, shell: Shell): void {
  remote(program.command('operations'))
    .description('list the operations: what is going on, and what went on lately')
    .action(
      withSession(shell, async (session) => {
        const all = await session.get('/v1/operations', z.array(operation));
        session.print(all, () => listOperations(all));
      }),
    );
  remote(program.command('cancel <operation>'))
    .description('cancel an operation and wait for its end')
    .action(
      withSession(shell, async (session, _options: SessionOptions, id: string) => {
        const path = `/v1/operations/${encodeURIComponent(id)}`;
        await session.client.json('DELETE', path, operation);
        await session.wait(id).catch((error: unknown) => {
          // To end with an error is what was asked for.
          if (!(error instanceof StaghornError)) throw error;
        });
        const ended = await session.get(path, operation);
        session.print(
          ended,
          () => `${id} has ${ended.state === 'cancelled' ? 'been cancelled' : ended.state}\n`,
        );
      }),
    );
}
