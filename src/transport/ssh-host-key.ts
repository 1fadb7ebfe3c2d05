import { readFileSync } from 'node:fs';
import type { ServerHostKeyAlgorithm } from 'ssh2';
import { StaghornError, messageOf } from '../errors/index.ts';
import { fingerprint, keyTypeOf, parseKnownHosts, type KnownHostLine } from './ssh-known-hosts.ts';
import type { SshSettings } from './ssh-settings.ts';

/** What ssh2 can check, best first; without SHA-1 signatures, as OpenSSH since 8.8. */
const checkableAlgorithms: readonly ServerHostKeyAlgorithm[] = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'rsa-sha2-512',
  'rsa-sha2-256',
];

/** Judges the key that a host presents by its known_hosts files. A key is never accepted for being new. */
export class HostKeyVerifier {
  readonly #settings: SshSettings;
  readonly #name: string;
  readonly #plainName: string | undefined;
  readonly #lines: readonly KnownHostLine[];
  readonly #authorities: readonly KnownHostLine[];
  readonly #revoked: readonly KnownHostLine[];

  /** @throws StaghornError 'host-key-mismatch' if a known_hosts file is there but cannot be read */
  constructor(settings: SshSettings) {
    this.#settings = settings;
    const { hostKeyAlias, hostName, port } = settings;
    this.#name = hostKeyAlias ?? (port === 22 ? hostName : `[${hostName}]:${port}`);
    // As ssh: where the port has no line of its own, a line for the bare name vouches for the key, never against it.
    this.#plainName = hostKeyAlias === undefined && port !== 22 ? hostName : undefined;
    const lines = settings.knownHostsFiles.flatMap((file) =>
      parseKnownHosts(readKnownHosts(file, settings), file),
    );
    const about = lines.filter((line) => line.matches(this.#name) || this.#matchesPlain(line));
    this.#revoked = about.filter(({ marker }) => marker === 'revoked');
    this.#authorities = about.filter(({ marker }) => marker === 'cert-authority');
    this.#lines = about.filter(({ marker }) => marker === undefined);
  }

  /**
   * The algorithms to offer: those of known keys first, so that the host presents a key that can be compared. The
   * others follow, so that a host that has changed is told apart from one that speaks another language.
   */
  algorithms(): ServerHostKeyAlgorithm[] {
    const exact = this.#exactLines();
    const types = new Set((exact.length > 0 ? exact : this.#lines).map(({ keyType }) => keyType));
    const isKnown = (algorithm: string) =>
      types.has(algorithm.startsWith('rsa-sha2-') ? 'ssh-rsa' : algorithm);
    return [
      ...checkableAlgorithms.filter(isKnown),
      ...checkableAlgorithms.filter((algorithm) => !isKnown(algorithm)),
    ];
  }

  /** Undefined if the key is the host's, else why it is not: a StaghornError 'host-key-mismatch'. */
  judge(key: Buffer): StaghornError | undefined {
    const isSame = (line: KnownHostLine) => line.key.equals(key);
    const revoked = this.#revoked.find(isSame);
    if (revoked !== undefined)
      return this.#mismatch(`${this.#presents(key)}, which ${place(revoked)} marks as revoked`);
    const exact = this.#exactLines();
    if (exact.length > 0) return exact.some(isSame) ? undefined : this.#changed(key, exact);
    return this.#lines.some(isSame) ? undefined : this.#unknown(key);
  }

  #exactLines(): readonly KnownHostLine[] {
    return this.#lines.filter((line) => line.matches(this.#name));
  }

  #matchesPlain(line: KnownHostLine): boolean {
    return this.#plainName !== undefined && line.matches(this.#plainName);
  }

  #changed(key: Buffer, lines: readonly KnownHostLine[]): StaghornError {
    const type = keyTypeOf(key);
    const sameType = lines.filter(({ keyType }) => keyType === type);
    const expected = (sameType.length > 0 ? sameType : lines)
      .map((line) => `${place(line)} has ${line.keyType} ${fingerprint(line.key)}`)
      .join(', ');
    return this.#mismatch(
      `its key has CHANGED: ${this.#presents(key)}, but ${expected}. Either the host was set up anew, or somebody ` +
        `is in between. If the new key is right, replace the old line`,
    );
  }

  #unknown(key: Buffer): StaghornError {
    const files = this.#settings.knownHostsFiles.join(', ') || '(no known_hosts file is configured)';
    const authority = this.#authorities[0];
    const certificates =
      authority === undefined
        ? ''
        : ` ${place(authority)} has a @cert-authority for it, but host certificates are not supported.`;
    return this.#mismatch(
      `its key is unknown: ${this.#presents(key)}, which is in none of ${files}.${certificates} If that is the ` +
        `host's key, add the line "${this.#name} ${keyTypeOf(key)} ${key.toString('base64')}"`,
    );
  }

  #presents(key: Buffer): string {
    return `it presents ${keyTypeOf(key)} ${fingerprint(key)}`;
  }

  #mismatch(problem: string): StaghornError {
    return hostKeyError(this.#settings, problem);
  }
}

function hostKeyError({ alias, hostName, port }: SshSettings, problem: string): StaghornError {
  const text = `host ${alias} (${hostName} port ${port}): ${problem}`;
  return new StaghornError('host-key-mismatch', text, { context: { host: alias } });
}

function place({ file, line }: KnownHostLine): string {
  return `${file}:${line}`;
}

function readKnownHosts(file: string, settings: SshSettings): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return '';
    throw hostKeyError(settings, `cannot read ${file}: ${messageOf(error)}`);
  }
}
