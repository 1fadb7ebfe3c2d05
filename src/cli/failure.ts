import { CommanderError } from 'commander';

import { asStaghornError, errorRegistry, StaghornError } from '../errors/index.ts';
import { toProblem } from '../protocol/problem.ts';
import { LeftBehind } from './session.ts';
import type { Terminal } from './terminal.ts';

/** Exit code of a CLI that a signal ended: 128 + SIGINT, as shells have it. */
export const interruptedExit = 130;

/** Tells of what was thrown, as one line or as problem details in JSON, and gives the exit code. */
export function fail(terminal: Terminal, thrown: unknown, isJson: boolean): number {
  if (thrown instanceof LeftBehind) {
    terminal.stderr.write(`staghorn: ${thrown.message}\n`);
    return interruptedExit;
  }
  if (thrown instanceof CommanderError && thrown.exitCode === 0) return 0;
  const error = thrown instanceof CommanderError ? usageError(thrown) : asStaghornError(thrown);
  terminal.stderr.write(isJson ? `${JSON.stringify(toProblem(error))}\n` : forPeople(error));
  if (error.code === 'internal' && terminal.env['STAGHORN_DEBUG'] !== undefined) {
    terminal.stderr.write(
      `${error.stack ?? ''}\n${String(error.cause instanceof Error ? error.cause.stack : '')}\n`,
    );
  }
  return errorRegistry[error.code].exit;
}

function usageError({ message, code }: CommanderError): StaghornError {
  // Commander has written the help itself where a command group was called without a command.
  const text = code === 'commander.help' ? 'a command is missing' : message.replace(/^error: /, '');
  return new StaghornError('invalid-input', text);
}

function forPeople({ message, context }: StaghornError): string {
  const where = [context.host, context.vm, context.port]
    .filter((part) => part !== undefined && !message.includes(part))
    .join(', ');
  const problems = (context.problems ?? []).map((problem) => `  ${problem}\n`);
  // One problem is in the message already.
  return `staghorn: ${where === '' ? '' : `${where}: `}${message}\n${problems.length > 1 ? problems.join('') : ''}`;
}
