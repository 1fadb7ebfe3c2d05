import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm, writeFile } from 'node:fs/promises';

import { messageOf, StaghornError } from '../errors/index.ts';
import { readTokenFile, tokenFile, urlFile } from './connection.ts';

const TOKEN_BYTES = 32;

export async function makeStateDir(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o755 });
  } catch (error) {
    throw new StaghornError(
      'invalid-input',
      `no state directory: ${messageOf(error)}; choose one with --state-dir`,
      { cause: error },
    );
  }
}

/** The server's token: made at its first start, readable by its user alone. */
export async function ownToken(stateDir: string): Promise<string> {
  const path = tokenFile(stateDir);
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(`${randomBytes(TOKEN_BYTES).toString('base64url')}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
  return readTokenFile(path);
}

/** Lets programs on this machine find the server; the returned function takes it back. */
export async function announceUrl(stateDir: string, url: string): Promise<() => Promise<void>> {
  const path = urlFile(stateDir);
  await writeFile(`${path}.new`, `${url}\n`);
  await rename(`${path}.new`, path);
  return () => rm(path, { force: true });
}
