import ssh2, { type Client } from 'ssh2';
import { StaghornError, messageOf } from '../errors/index.ts';
import { unreachable, type SshCarrier } from './ssh-carrier.ts';
import type { HostKeyVerifier } from './ssh-host-key.ts';
import type { Identities } from './ssh-identities.ts';
import type { SshSettings } from './ssh-settings.ts';

export interface HandshakeParts {
  readonly settings: SshSettings;
  readonly carrier: SshCarrier;
  readonly verifier: HostKeyVerifier;
  readonly identities: Identities;
}

/**
 * Key exchange and login over a carrier.
 * @throws StaghornError 'host-key-mismatch', 'authentication-failed' or 'host-unreachable'; the signal's reason if
 *   it aborts. The carrier is closed then.
 */
export function handshake(parts: HandshakeParts, signal: AbortSignal): Promise<Client> {
  const { carrier } = parts;
  const client = new ssh2.Client();
  const attempt = new Attempt(parts);
  // ssh2 goes on emitting errors after the first one, which must not be uncaught.
  client.on('error', () => undefined);
  return new Promise<Client>((resolve, reject) => {
    const release = () => {
      signal.removeEventListener('abort', onAbort);
      client.off('error', onError).off('close', onClose).off('ready', onReady);
    };
    const fail = (error: Error) => {
      release();
      client.destroy();
      carrier.close();
      reject(error);
    };
    const onAbort = () => fail(signal.reason as Error);
    const onClose = () => fail(attempt.ended());
    const onError = (error: Error & { level?: string }) => {
      const final = attempt.failed(error);
      if (final !== undefined) fail(final);
    };
    const onReady = () => {
      release();
      resolve(client);
    };
    client.on('error', onError).on('close', onClose).on('ready', onReady);
    if (signal.aborted) return onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    client.on('handshake', () => attempt.keysExchanged());
    client.connect(attempt.connectConfig());
  });
}

/** Knows how far one attempt came, which says what an error of ssh2 means. */
class Attempt {
  readonly #parts: HandshakeParts;
  #hostKeyError: StaghornError | undefined;
  #acceptedMethods: readonly string[] = [];
  #authenticating = false;

  constructor(parts: HandshakeParts) {
    this.#parts = parts;
  }

  connectConfig() {
    const { settings, carrier, verifier, identities } = this.#parts;
    return {
      sock: carrier.stream,
      username: settings.user,
      // The deadline is the caller's signal.
      readyTimeout: 0,
      keepaliveInterval: settings.aliveIntervalMs,
      keepaliveCountMax: settings.aliveCountMax,
      algorithms: { serverHostKey: verifier.algorithms() },
      hostVerifier: (key: Buffer) => {
        this.#hostKeyError = verifier.judge(key);
        return this.#hostKeyError === undefined;
      },
      authHandler: (
        methods: readonly string[] | null,
        _partial: boolean | null,
        next: (method: never) => void,
      ) => {
        this.#acceptedMethods = methods ?? this.#acceptedMethods;
        // The types lack false, which is how ssh2 is told that nothing is left.
        next((identities.next() ?? false) as never);
      },
    };
  }

  keysExchanged(): void {
    this.#authenticating = true;
  }

  /** What an error means; undefined if ssh2 goes on with the next key. */
  failed(error: Error & { level?: string }): StaghornError | undefined {
    if (this.#hostKeyError !== undefined) return this.#hostKeyError;
    if (error.level === 'agent') {
      this.#parts.identities.skipped.push(`agent: ${error.message}`);
      return undefined;
    }
    if (error.level === 'client-authentication') {
      return /^All configured/.test(error.message) ? this.#refused('') : undefined;
    }
    if (this.#authenticating && /authentication failures/i.test(error.message))
      return this.#refused(error.message);
    return unreachable(this.#parts.settings, `${messageOf(error)}${this.#parts.carrier.describe()}`, error);
  }

  ended(): StaghornError {
    if (this.#hostKeyError !== undefined) return this.#hostKeyError;
    const stage = this.#authenticating ? 'the login' : 'the key exchange';
    const { settings, carrier } = this.#parts;
    return unreachable(settings, `it closed the connection during ${stage}${carrier.describe()}`);
  }

  #refused(reason: string): StaghornError {
    const { settings, identities } = this.#parts;
    const tried =
      identities.tried.length === 0 ? 'there was no key to try' : `tried ${identities.tried.join(', ')}`;
    const problems = [
      tried,
      ...(identities.skipped.length === 0 ? [] : [`could not use ${identities.skipped.join('; ')}`]),
      ...(this.#acceptedMethods.length === 0 ? [] : [`it accepts ${this.#acceptedMethods.join(', ')}`]),
      ...(reason === '' ? [] : [`it said: ${reason}`]),
    ];
    const { alias, hostName, port, user } = settings;
    const text = `host ${alias} (${hostName} port ${port}) refused the login of user ${user}: ${problems.join('; ')}`;
    return new StaghornError('authentication-failed', text, { context: { host: alias, problems } });
  }
}
