import { StaghornError } from '../errors/index.ts';
import { cachedScript, installScript, stagingScript } from './agent-cache-scripts.ts';
import type { Bundle } from './agent-bundle.ts';
import type { Privilege } from './agent-privilege.ts';
import { withDeadline } from './deadline.ts';
import { shellCommand, shellQuote } from './shell-quote.ts';
import type { SshSession } from './ssh-session.ts';

export interface CacheOptions {
  /** For each step on the host, the upload of one file being one. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((file: string, sentBytes: number, totalBytes: number) => void) | undefined;
}

export interface CacheEntry {
  readonly directory: string;
  /** False if it lay there already, whole. */
  readonly uploaded: boolean;
}

/**
 * Makes sure that a bundle lies in a host's cache, whole: it is checked each time, and uploaded if it is missing or
 * damaged. Any number of controllers may do so at once. Old versions are removed, down to the last three.
 * @throws StaghornError 'host-unfit' with what the host said, or what running a command throws
 */
export async function ensureCached(
  session: SshSession,
  privilege: Privilege,
  kind: 'agent' | 'node',
  bundle: Bundle,
  options: CacheOptions,
): Promise<CacheEntry> {
  const base = `${privilege.cacheDirectory}/${kind}`;
  const directory = `${base}/${bundle.hash}`;
  const shell = new HostShell(session, options);
  const present = await shell.run(privilege.prefix, cachedScript(directory, bundle));
  if (present === 'cached') return { directory, uploaded: false };
  const staging = await shell.run([], stagingScript);
  try {
    await upload(session, bundle, staging, options);
    await shell.run(privilege.prefix, installScript({ base, bundle, staging }));
  } catch (error) {
    // Best effort, also after the caller's abort: if the connection is gone, so is the way to clean up.
    const cleanUp = { timeoutMs: options.timeoutMs, input: `rm -rf -- ${shellQuote(staging)}\n` };
    await session.run('sh -s', cleanUp).catch(() => undefined);
    throw error;
  }
  return { directory, uploaded: true };
}

class HostShell {
  readonly #session: SshSession;
  readonly #options: CacheOptions;

  constructor(session: SshSession, options: CacheOptions) {
    this.#session = session;
    this.#options = options;
  }

  /** What a script printed, by `sh -s` because neither login shells nor sudoers agree on anything else. */
  async run(prefix: readonly string[], script: string): Promise<string> {
    const { timeoutMs, signal } = this.#options;
    const command = shellCommand([...prefix, 'sh', '-s']);
    const { code, stdout, stderr } = await this.#session.run(command, { timeoutMs, signal, input: script });
    if (code === 0) return stdout.trim();
    const { host } = this.#session;
    const text = `host ${host}: putting the agent into its cache failed: ${stderr.trim() || `exit code ${code}`}`;
    throw new StaghornError('host-unfit', text, { context: { host } });
  }
}

async function upload(
  session: SshSession,
  bundle: Bundle,
  staging: string,
  options: CacheOptions,
): Promise<void> {
  const { onProgress, signal, timeoutMs } = options;
  const sftp = await session.sftp();
  try {
    for (const { name, path } of bundle.files) {
      const late = () => tooLate(session.host, path, timeoutMs);
      const report = (sentBytes: number, totalBytes: number) => onProgress?.(name, sentBytes, totalBytes);
      await withDeadline({ timeoutMs, signal, late }, (limit) =>
        sftp.uploadFile(path, `${staging}/${name}`, { mode: 0o600, signal: limit, onProgress: report }),
      );
    }
  } finally {
    sftp.close();
  }
}

function tooLate(host: string, path: string, timeoutMs: number): StaghornError {
  const text = `host ${host}: the upload of ${path} took longer than ${timeoutMs} ms`;
  return new StaghornError('deadline-exceeded', text, { context: { host } });
}
