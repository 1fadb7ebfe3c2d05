import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A directory for one test file, readable by any user because sshd reads authorized_keys as the one who logs in. */
export function makeTestDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'staghorn-transport-'));
  chmodSync(directory, 0o755);
  return directory;
}

export function removeTestDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}

/** Makes a key pair; returns the path of the private key. */
export function makeKey(path: string, type = 'ed25519', passphrase = ''): string {
  execFileSync('ssh-keygen', ['-q', '-t', type, '-N', passphrase, '-C', 'test', '-f', path]);
  return path;
}

/** "type base64" of a public key, without its comment. */
export function publicKey(path: string): string {
  return readFileSync(`${path}.pub`, 'utf8').split(' ').slice(0, 2).join(' ');
}

export function fingerprintOf(path: string): string {
  return execFileSync('ssh-keygen', ['-lf', `${path}.pub`], { encoding: 'utf8' }).split(' ')[1] ?? '';
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export interface SshdOptions {
  readonly directory: string;
  readonly name: string;
  /** Public keys that may log in, as anybody. */
  readonly authorized: readonly string[];
  readonly hostKeyTypes?: readonly string[];
  /** Files that this host does not have: in a mount namespace of its own. */
  readonly hidden?: readonly string[];
  /** More lines for sshd_config. */
  readonly extra?: readonly string[];
}

/** A real sshd on a port of 127.0.0.1 with keys of its own. */
export class TestSshd {
  readonly port: number;
  /** Private host keys by type. */
  readonly hostKeys: ReadonlyMap<string, string>;
  readonly #child: ChildProcess;
  #log = '';

  private constructor(child: ChildProcess, port: number, hostKeys: ReadonlyMap<string, string>) {
    this.#child = child;
    this.port = port;
    this.hostKeys = hostKeys;
    child.stderr?.on('data', (chunk: Buffer) => (this.#log += chunk.toString()));
  }

  static async start(options: SshdOptions): Promise<TestSshd> {
    // Where sshd confines its unprivileged half; a package's service would make it.
    mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
    const { directory, name, hostKeyTypes = ['ed25519'] } = options;
    const hostKeys = new Map(
      hostKeyTypes.map((type) => [type, makeKey(join(directory, `${name}-${type}`), type)]),
    );
    const port = await freePort();
    const config = join(directory, `${name}.conf`);
    writeFileSync(
      join(directory, `${name}.authorized`),
      options.authorized.map((key) => `${key}\n`).join(''),
    );
    writeFileSync(config, configuration(options, port, [...hostKeys.values()]));
    const hide = (options.hidden ?? []).map((path) => `mount --bind /dev/null ${path} && `).join('');
    const script = `${hide}exec /usr/sbin/sshd -D -e -f ${config}`;
    const child = spawn('unshare', ['--mount', 'sh', '-c', script], { stdio: ['ignore', 'ignore', 'pipe'] });
    const sshd = new TestSshd(child, port, hostKeys);
    await sshd.#listening();
    return sshd;
  }

  get log(): string {
    return this.#log;
  }

  /** The line of known_hosts for one of its keys. */
  knownHostsLine(type = 'ed25519'): string {
    return `[127.0.0.1]:${this.port} ${publicKey(this.hostKeys.get(type) ?? '')}\n`;
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill();
    await exited;
  }

  async #listening(): Promise<void> {
    while (!this.#log.includes('Server listening')) {
      await Promise.race([once(this.#child.stderr ?? this.#child, 'data'), once(this.#child, 'exit')]);
      if (this.#child.exitCode !== null) throw new Error(`sshd did not start: ${this.#log}`);
    }
  }
}

function configuration(
  { directory, name, extra = [] }: SshdOptions,
  port: number,
  hostKeys: readonly string[],
): string {
  return [
    `Port ${port}`,
    'ListenAddress 127.0.0.1',
    ...hostKeys.map((path) => `HostKey ${path}`),
    `AuthorizedKeysFile ${directory}/${name}.authorized`,
    'StrictModes no',
    'UsePAM no',
    'PidFile none',
    'PermitRootLogin yes',
    'PasswordAuthentication no',
    'KbdInteractiveAuthentication no',
    'MaxStartups 100',
    'LogLevel VERBOSE',
    'Subsystem sftp internal-sftp',
    ...extra,
    '',
  ].join('\n');
}

/** An ssh_config that reads nothing of the machine's own. Returns its path. */
export function writeSshConfig(
  path: string,
  hosts: Readonly<Record<string, Readonly<Record<string, string>>>>,
): string {
  const sections = Object.entries(hosts).map(([alias, options]) =>
    [`Host ${alias}`, ...Object.entries(options).map(([name, value]) => `  ${name} ${value}`)].join('\n'),
  );
  writeFileSync(
    path,
    `${sections.join('\n')}\nHost *\n  HostName 127.0.0.1\n  User root\n  IdentityAgent none\n  GlobalKnownHostsFile none\n`,
  );
  return path;
}
