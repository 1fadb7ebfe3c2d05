import { runCli } from '../../src/cli/program.ts';
import type { Parts } from '../../src/cli/parts.ts';
import { FakeTerminal } from './fake-terminal.ts';

/** Clients need no parts: to ask for one is an error. */
export const noParts: Parts = {
  createController: () => Promise.reject(new Error('a client asked for a controller')),
  runAgent: () => Promise.reject(new Error('a client asked for an agent')),
  loadLab: () => Promise.reject(new Error('a client asked for the lab')),
};

export interface Ran {
  readonly exit: number;
  readonly out: string;
  readonly err: string;
}

/** One command line against a server, not at a terminal. */
export async function run(
  url: string,
  line: string,
  options: { stdin?: string; env?: Record<string, string> } = {},
): Promise<Ran> {
  const terminal = new FakeTerminal({ env: { STAGHORN_URL: url, ...options.env } });
  terminal.stdin.end(options.stdin ?? '');
  const exit = await runCli(line.split(' '), terminal, noParts);
  return { exit, out: terminal.text, err: terminal.err };
}
