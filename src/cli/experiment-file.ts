import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { LineCounter, parseDocument } from 'yaml';

import { messageOf, StaghornError } from '../errors/index.ts';
import type { Terminal } from './terminal.ts';

/** An experiment from a JSON or YAML file, or from stdin for "-". What it must hold is the server's to check. */
export async function readExperimentFile(path: string, { stdin }: Terminal): Promise<unknown> {
  const name = path === '-' ? 'stdin' : path;
  const content = path === '-' ? await text(stdin) : await readText(path);
  const lineCounter = new LineCounter();
  const document = parseDocument(content, { lineCounter, prettyErrors: false });
  if (document.errors.length === 0) return document.toJS({ maxAliasCount: 100 });
  const problems = document.errors.map(({ pos, message }) => {
    const { line, col } = lineCounter.linePos(pos[0]);
    return `${name}:${line}:${col}: ${message}`;
  });
  throw new StaghornError('invalid-input', `not YAML or JSON: ${problems[0] ?? name}`, {
    context: { problems },
  });
}

/** `[USER@]HOST[:PORT]`; an IPv6 address is for ssh_config to know. */
export function parseHost(given: string): { name: string; user?: string; port?: number } {
  const [, user, name, port] = /^(?:([^@:]+)@)?([^@:]+)(?::(\d{1,5}))?$/.exec(given) ?? [];
  if (name === undefined) throw new StaghornError('invalid-input', `"${given}" is not [USER@]HOST[:PORT]`);
  return {
    name,
    ...(user === undefined ? {} : { user }),
    ...(port === undefined ? {} : { port: Number(port) }),
  };
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const hint = 'an experiment comes from a file, or from a name and --host';
    throw new StaghornError('invalid-input', `${path} cannot be read: ${messageOf(error)}; ${hint}`, {
      cause: error,
    });
  }
}
