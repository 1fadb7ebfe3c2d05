import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { messageOf, StaghornError } from '../errors/index.ts';
import type { Terminal } from './terminal.ts';

export const defaultListen = '127.0.0.1:7411';
export const defaultStateDir = '/var/lib/staghorn';

/** Files in the state directory by which a CLI on the same machine finds its server. */
export const urlFile = (stateDir: string) => join(stateDir, 'url');
export const tokenFile = (stateDir: string) => join(stateDir, 'token');

export interface ConnectionOptions {
  readonly url?: string;
  readonly tokenFile?: string;
}

export interface Connection {
  /** Without a slash at the end. */
  readonly url: string;
  readonly token: string | null;
}

/**
 * Where the server is and what it lets us in with: options first, then the environment, then what a server on this
 * machine left in its state directory. That token goes to no other machine.
 */
export async function findServer(options: ConnectionOptions, env: Terminal['env']): Promise<Connection> {
  const stateDir = env['STAGHORN_STATE_DIR'] ?? defaultStateDir;
  const chosen = options.url ?? env['STAGHORN_URL'];
  const url = checkedUrl(chosen ?? (await readIfThere(urlFile(stateDir))) ?? `http://${defaultListen}`);
  if (options.tokenFile !== undefined) return { url, token: await readTokenFile(options.tokenFile) };
  const isLocal = chosen === undefined || ['127.0.0.1', '[::1]', 'localhost'].includes(new URL(url).hostname);
  const token = env['STAGHORN_TOKEN'] ?? (isLocal ? await readIfThere(tokenFile(stateDir)) : undefined);
  return { url, token: token ?? null };
}

export async function readTokenFile(path: string): Promise<string> {
  let text: string;
  try {
    text = (await readFile(path, 'utf8')).trim();
  } catch (error) {
    throw new StaghornError('invalid-input', `the token file cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (/^\S+$/.test(text)) return text;
  throw new StaghornError('invalid-input', `the token file ${path} must hold one word`);
}

function checkedUrl(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text.replace(/\/+$/, '');
  throw new StaghornError('invalid-input', `"${text}" is not the http or https URL of a server`);
}

/** Undefined if it is not there or not for us: the server says what is missing. */
async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, 'utf8')).trim() || undefined;
  } catch {
    return undefined;
  }
}
