import { createHash } from 'node:crypto';
import { homedir, hostname, userInfo } from 'node:os';
import { join } from 'node:path';
import SSHConfig from 'ssh-config';
import { StaghornError } from '../errors/index.ts';
import { readSshConfigText } from './ssh-config-text.ts';

/** A host as people name it: an alias of ssh_config or a name or address. What is given here wins over ssh_config. */
export interface SshTarget {
  readonly host: string;
  /** Read instead of ~/.ssh/config and /etc/ssh/ssh_config, as `ssh -F`. */
  readonly configFile?: string | undefined;
  readonly user?: string | undefined;
  readonly port?: number | undefined;
  /** A private key file, tried before those of ssh_config, as `ssh -i`. */
  readonly identity?: string | undefined;
}

export interface IdentityFile {
  readonly path: string;
  /** False for the default files, which need not exist. */
  readonly named: boolean;
}

/** What ssh_config(5) says about a host, every path and token expanded. */
export interface SshSettings {
  readonly alias: string;
  readonly configFile: string | undefined;
  readonly hostName: string;
  readonly port: number;
  readonly user: string;
  readonly identityFiles: readonly IdentityFile[];
  readonly identitiesOnly: boolean;
  readonly agentSocket: string | undefined;
  /** The user's files, then the global ones. */
  readonly knownHostsFiles: readonly string[];
  readonly hostKeyAlias: string | undefined;
  /** Hops in the order in which they are passed. */
  readonly proxyJump: readonly string[];
  readonly proxyCommand: string | undefined;
  readonly connectTimeoutMs: number | undefined;
  readonly aliveIntervalMs: number;
  readonly aliveCountMax: number;
}

const defaultIdentityNames = ['id_rsa', 'id_ecdsa', 'id_ed25519'];
// OpenSSH's default is not to ask at all; a controller must notice that a host is gone.
const defaultAliveIntervalS = 10;

/** @throws StaghornError 'invalid-input' on a file that cannot be read, or a value or token that has no meaning */
export function resolveSshSettings(target: SshTarget): SshSettings {
  const options = new Options(target);
  const port = target.port ?? options.integer('port') ?? 22;
  const user = target.user ?? options.text('user') ?? userInfo().username;
  const hostName = options.expand(options.text('hostname') ?? target.host, { h: target.host });
  const tokens = connectionTokens({
    target,
    hostName,
    port,
    user,
    proxyJump: options.text('proxyjump') ?? '',
  });
  const path = (text: string) => options.path(text, tokens);
  return {
    alias: target.host,
    configFile: target.configFile,
    hostName,
    port,
    user,
    identityFiles: identityFiles(options, target, path),
    identitiesOnly: options.text('identitiesonly')?.toLowerCase() === 'yes',
    agentSocket: agentSocket(options, path),
    knownHostsFiles: [
      ...options.list('userknownhostsfile', ['~/.ssh/known_hosts', '~/.ssh/known_hosts2']),
      ...options.list('globalknownhostsfile', ['/etc/ssh/ssh_known_hosts', '/etc/ssh/ssh_known_hosts2']),
    ]
      .filter((file) => file !== 'none')
      .map(path),
    hostKeyAlias: options.text('hostkeyalias'),
    ...proxy(options, tokens),
    connectTimeoutMs: milliseconds(options.integer('connecttimeout')),
    aliveIntervalMs: 1000 * (options.integer('serveraliveinterval') ?? defaultAliveIntervalS),
    aliveCountMax: options.integer('serveralivecountmax') ?? 3,
  };
}

type Tokens = Readonly<Record<string, string>>;

/** The computed options of one host, by lower-case name. */
class Options {
  readonly #values: Readonly<Record<string, string | string[]>>;
  readonly #host: string;

  constructor({ host, configFile, user }: SshTarget) {
    this.#host = host;
    const query = { Host: host, ...(user === undefined ? {} : { User: user }) };
    this.#values = SSHConfig.parse(readSshConfigText(configFile)).compute(query, { ignoreCase: true });
  }

  text(name: string): string | undefined {
    const value = this.#values[name];
    return Array.isArray(value) ? value.join(' ') : value;
  }

  list(name: string, otherwise: readonly string[] = []): readonly string[] {
    const value = this.#values[name];
    if (value === undefined) return otherwise;
    return Array.isArray(value) ? value : [value];
  }

  integer(name: string): number | undefined {
    const text = this.text(name);
    if (text === undefined || text === 'none') return undefined;
    if (!/^\d{1,6}$/.test(text)) throw this.#invalid(`${name} is "${text}", which is not a number`);
    return Number(text);
  }

  /** True if `name` was said before `other`: the first of two that exclude each other counts. */
  precedes(name: string, other: string): boolean {
    const names = Object.keys(this.#values);
    return names.includes(name) && (!names.includes(other) || names.indexOf(name) < names.indexOf(other));
  }

  /** ssh_config(5), TOKENS. */
  expand(text: string, tokens: Tokens): string {
    return text.replace(/%(.)/g, (_, token: string) => {
      const value = token === '%' ? '%' : tokens[token];
      if (value === undefined)
        throw this.#invalid(`"${text}" has the token %${token}, which is not known here`);
      return value;
    });
  }

  /** ssh_config(5), TOKENS, ENVIRONMENT VARIABLES and the tilde. */
  path(text: string, tokens: Tokens): string {
    const expanded = this.expand(text, tokens).replace(/\$\{(\w+)\}/g, (_, name: string) => {
      const value = process.env[name];
      if (value === undefined)
        throw this.#invalid(`"${text}" needs the environment variable ${name}, which is not set`);
      return value;
    });
    return expanded.startsWith('~/') ? join(homedir(), expanded.slice(2)) : expanded;
  }

  #invalid(problem: string): StaghornError {
    return new StaghornError('invalid-input', `ssh_config for host ${this.#host}: ${problem}`, {
      context: { host: this.#host },
    });
  }
}

interface Connection {
  readonly target: SshTarget;
  readonly hostName: string;
  readonly port: number;
  readonly user: string;
  readonly proxyJump: string;
}

function connectionTokens({ target, hostName, port, user, proxyJump }: Connection): Tokens {
  const local = hostname();
  const hash = createHash('sha1').update(`${local}${hostName}${port}${user}${proxyJump}`).digest('hex');
  const account = userInfo();
  return {
    d: homedir(),
    h: hostName,
    i: String(account.uid),
    j: proxyJump,
    k: hostName,
    L: local.split('.')[0] ?? local,
    l: local,
    n: target.host,
    p: String(port),
    r: user,
    u: account.username,
    C: hash,
  };
}

function identityFiles(
  options: Options,
  target: SshTarget,
  path: (text: string) => string,
): readonly IdentityFile[] {
  const configured = options.list('identityfile');
  const named = [...(target.identity === undefined ? [] : [target.identity]), ...configured]
    .filter((file) => file !== 'none')
    .map((file) => ({ path: path(file), named: true }));
  if (named.length > 0 || configured.length > 0) return named;
  return defaultIdentityNames.map((name) => ({ path: join(homedir(), '.ssh', name), named: false }));
}

function agentSocket(options: Options, path: (text: string) => string): string | undefined {
  const configured = options.text('identityagent') ?? 'SSH_AUTH_SOCK';
  if (configured === 'none') return undefined;
  if (configured === 'SSH_AUTH_SOCK') return process.env['SSH_AUTH_SOCK'] || undefined;
  const variable = /^\$(\w+)$/.exec(configured)?.[1];
  return variable === undefined ? path(configured) : process.env[variable] || undefined;
}

function proxy(options: Options, tokens: Tokens): Pick<SshSettings, 'proxyJump' | 'proxyCommand'> {
  const jump = options.text('proxyjump');
  const command = options.text('proxycommand');
  if (options.precedes('proxyjump', 'proxycommand')) {
    const hops = jump === undefined || jump === 'none' ? [] : jump.split(',').map((hop) => hop.trim());
    return { proxyJump: hops, proxyCommand: undefined };
  }
  const none = command === undefined || command === 'none';
  return { proxyJump: [], proxyCommand: none ? undefined : options.expand(command, tokens) };
}

function milliseconds(seconds: number | undefined): number | undefined {
  return seconds === undefined || seconds === 0 ? undefined : seconds * 1000;
}
