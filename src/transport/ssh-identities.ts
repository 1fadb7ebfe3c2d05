import { readFileSync } from 'node:fs';
import ssh2, {
  type AnyAuthMethod,
  type BaseAgent,
  type IdentityCallback,
  type ParsedKey,
  type SignCallback,
  type SigningRequestOptions,
} from 'ssh2';
import { messageOf } from '../errors/index.ts';
import { fingerprint } from './ssh-known-hosts.ts';
import type { IdentityFile, SshSettings } from './ssh-settings.ts';

// CommonJS: Node finds no named exports in it.
const { createAgent, utils } = ssh2;

/**
 * The keys to log in with, in ssh's order: those of the agent, then those of the files. Remembers what was tried and
 * what could not be, because that is what a refused user needs to know.
 */
export class Identities {
  readonly tried: string[] = [];
  readonly skipped: string[] = [];
  readonly #attempts: (() => AnyAuthMethod)[] = [];

  static async load(settings: SshSettings): Promise<Identities> {
    const identities = new Identities();
    const files = settings.identityFiles.map(loadIdentityFile);
    const fromAgent = await identities.#addAgent(settings, files);
    for (const file of files) identities.#addFile(settings.user, file, fromAgent);
    return identities;
  }

  /** The next attempt, or undefined when there is none left. */
  next(): AnyAuthMethod | undefined {
    return this.#attempts.shift()?.();
  }

  async #addAgent(
    { agentSocket, identitiesOnly, user }: SshSettings,
    files: LoadedFile[],
  ): Promise<Set<string>> {
    if (agentSocket === undefined) return new Set();
    const named = new Set(
      files.flatMap(({ publicKey }) => (publicKey === undefined ? [] : [fingerprint(publicKey)])),
    );
    try {
      const agent = createAgent(agentSocket);
      const all = await identitiesOf(agent);
      const keys = all.filter((key) => !identitiesOnly || named.has(fingerprint(key.getPublicSSH())));
      // Keys that a file names come first: sshd allows six attempts by default.
      const rank = (key: ParsedKey) => (named.has(fingerprint(key.getPublicSSH())) ? 0 : 1);
      for (const key of keys.sort((one, other) => rank(one) - rank(other))) {
        this.#attempts.push(() => {
          this.tried.push(`${key.type} ${fingerprint(key.getPublicSSH())} (agent)`);
          return { type: 'agent', username: user, agent: new SingleKeyAgent(agent, key) };
        });
      }
      return new Set(keys.map((key) => fingerprint(key.getPublicSSH())));
    } catch (error) {
      this.skipped.push(`agent ${agentSocket}: ${messageOf(error)}`);
      return new Set();
    }
  }

  #addFile(user: string, { path, key, publicKey, problem }: LoadedFile, fromAgent: Set<string>): void {
    if (publicKey !== undefined && fromAgent.has(fingerprint(publicKey))) return;
    if (problem !== undefined) this.skipped.push(`${path}: ${problem}`);
    if (key === undefined) return;
    this.#attempts.push(() => {
      this.tried.push(`${key.type} ${fingerprint(key.getPublicSSH())} (${path})`);
      return { type: 'publickey', username: user, key };
    });
  }
}

interface LoadedFile {
  readonly path: string;
  readonly key?: ParsedKey;
  readonly publicKey?: Buffer;
  readonly problem?: string;
}

function loadIdentityFile({ path, named }: IdentityFile): LoadedFile {
  let text: Buffer;
  try {
    text = readFileSync(path);
  } catch (error) {
    const publicKey = publicKeyBeside(path);
    const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT';
    // The agent may hold the key of which only the public half lies here.
    if (missing && (!named || publicKey !== undefined)) return { path, publicKey };
    return { path, publicKey, problem: missing ? 'there is no such file' : messageOf(error) };
  }
  const key = parseKey(text);
  if (!(key instanceof Error)) {
    if (key.isPrivateKey()) return { path, key, publicKey: key.getPublicSSH() };
    return {
      path,
      publicKey: key.getPublicSSH(),
      problem: 'it is a public key, and no agent has its private key',
    };
  }
  const encrypted = /encrypted|passphrase/i.test(key.message);
  const problem = encrypted ? `it is encrypted; load it into an agent first (ssh-add ${path})` : key.message;
  return { path, publicKey: publicKeyBeside(path), problem };
}

function publicKeyBeside(path: string): Buffer | undefined {
  try {
    const key = parseKey(readFileSync(`${path}.pub`));
    return key instanceof Error ? undefined : key.getPublicSSH();
  } catch {
    return undefined;
  }
}

function parseKey(text: Buffer): ParsedKey | Error {
  // The types say one key; for some formats it is a list (ssh2 1.17, lib/protocol/keyParser.js).
  const parsed = utils.parseKey(text) as ParsedKey | Error | ParsedKey[];
  return Array.isArray(parsed) ? (parsed[0] ?? new Error('it holds no key')) : parsed;
}

function identitiesOf(agent: BaseAgent): Promise<ParsedKey[]> {
  return new Promise((resolve, reject) => {
    agent.getIdentities((error, keys) => {
      if (error) return reject(error);
      const parsed = (keys ?? []).map((key) => (isParsed(key) ? key : utils.parseKey(key as Buffer)));
      resolve(parsed.flat().filter((key): key is ParsedKey => !(key instanceof Error)));
    });
  });
}

function isParsed(key: unknown): key is ParsedKey {
  return typeof key === 'object' && key !== null && 'getPublicSSH' in key;
}

/** One key of an agent, so that each attempt is one key and can be told from the others. */
class SingleKeyAgent extends ssh2.BaseAgent {
  readonly #agent: BaseAgent;
  readonly #key: ParsedKey;

  constructor(agent: BaseAgent, key: ParsedKey) {
    super();
    this.#agent = agent;
    this.#key = key;
  }

  override getIdentities(callback: IdentityCallback): void {
    callback(undefined, [this.#key]);
  }

  override sign(
    key: ParsedKey | Buffer | string,
    data: Buffer,
    options: SigningRequestOptions | SignCallback,
    callback?: SignCallback,
  ): void {
    if (typeof options === 'function') this.#agent.sign(key, data, options);
    else this.#agent.sign(key, data, options, callback);
  }
}
