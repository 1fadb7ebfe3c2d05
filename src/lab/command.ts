import { execFile } from 'node:child_process';
import { StaghornError } from '../errors/index.ts';

/** Where the tools come from that a machine may lack. */
const packageOf: Readonly<Record<string, string>> = {
  'apt-get': 'apt',
  'apt-cache': 'apt',
  'dpkg-deb': 'dpkg',
  gcc: 'gcc and libc6-dev',
  ip: 'iproute2',
  nsenter: 'util-linux',
  'ssh-keygen': 'openssh-client',
  tc: 'iproute2',
  unshare: 'util-linux',
};

export interface RunOptions {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number;
  readonly cwd?: string;
}

/** A command that did not end well, with what it wrote to standard error. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly stderr: string;

  constructor(argv: readonly string[], reason: string, stderr: string) {
    super(`${argv.join(' ')}: ${stderr.trim() === '' ? reason : stderr.trim()}`);
    this.stderr = stderr;
  }
}

/**
 * Runs a command to its end and gives what it wrote to standard output (at most 16 MiB).
 * @throws CommandError when it fails; StaghornError 'cancelled', 'host-unfit' (not installed), 'deadline-exceeded'
 */
export function run(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const [file, ...args] = argv as [string, ...string[]];
  const { signal, cwd, timeoutMs = 60_000 } = options;
  return new Promise((resolve, reject) => {
    const settings = { signal, cwd, timeout: timeoutMs, killSignal: 'SIGKILL' as const, maxBuffer: 2 ** 24 };
    execFile(file, args, settings, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else if (signal?.aborted === true) reject(new StaghornError('cancelled', `${file} was cancelled`));
      else if (error.code === 'ENOENT') reject(missing(file));
      else if (error.killed === true)
        reject(new StaghornError('deadline-exceeded', `${argv.join(' ')} ran longer than ${timeoutMs} ms`));
      else reject(new CommandError(argv, error.message, stderr));
    }).stdin?.end();
  });
}

function missing(file: string): StaghornError {
  const source = packageOf[file.split('/').at(-1) ?? file];
  const hint = source === undefined ? '' : ` (Debian has it in ${source})`;
  return new StaghornError('host-unfit', `this machine lacks "${file}"${hint}`);
}
