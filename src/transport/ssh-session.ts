import type { Duplex } from 'node:stream';
import type { Client } from 'ssh2';
import { StaghornError, messageOf } from '../errors/index.ts';
import { unreachable, type SshCarrier } from './ssh-carrier.ts';
import {
  execCommand,
  runCommand,
  type RemoteProcess,
  type RunOptions,
  type RunResult,
} from './ssh-process.ts';
import type { SshSettings } from './ssh-settings.ts';
import { openSftp, type SftpChannel } from './ssh-sftp.ts';

// A host that is gone does not answer the end of the connection either.
const closeGraceMs = 1000;

/** A connection to a host on which a user is logged in. It ends once, and `closed` says why. */
export class SshSession {
  /** Settles with the reason when the connection has ended. Never rejects. */
  readonly closed: Promise<StaghornError>;
  readonly #client: Client;
  readonly #settings: SshSettings;
  readonly #carrier: SshCarrier;
  #reason: StaghornError | undefined;
  #isClosed = false;

  constructor(client: Client, settings: SshSettings, carrier: SshCarrier) {
    this.#client = client;
    this.#settings = settings;
    this.#carrier = carrier;
    client.on('error', (error) => {
      this.#reason ??= unreachable(settings, messageOf(error), error);
    });
    this.closed = new Promise((resolve) => {
      client.once('close', () => {
        this.#isClosed = true;
        carrier.close();
        resolve(this.#reason ?? unreachable(settings, 'it closed the connection'));
      });
    });
  }

  /** The host as its user named it. */
  get host(): string {
    return this.#settings.alias;
  }

  get user(): string {
    return this.#settings.user;
  }

  /** Starts a command in the user's login shell. @throws StaghornError 'host-unreachable' */
  exec(command: string): Promise<RemoteProcess> {
    return execCommand(this.#client, this.host, command);
  }

  /**
   * Runs a command to its end; of each output the first MiB is kept.
   * @throws StaghornError 'deadline-exceeded', 'cancelled', 'host-unreachable'
   */
  run(command: string, options: RunOptions): Promise<RunResult> {
    return runCommand(this.#client, this.host, command, options);
  }

  /** @throws StaghornError 'host-unfit' if the host's sshd has no SFTP subsystem */
  sftp(): Promise<SftpChannel> {
    return openSftp(this.#client, this.host);
  }

  /** A TCP connection from the host to elsewhere (RFC 4254, section 7.2). @throws StaghornError 'host-unreachable' */
  forward(toHost: string, toPort: number): Promise<Duplex> {
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) =>
        reject(
          unreachable(
            this.#settings,
            `cannot reach ${toHost} port ${toPort} from it: ${messageOf(error)}`,
            error,
          ),
        );
      try {
        this.#client.forwardOut('127.0.0.1', 0, toHost, toPort, (error, stream) =>
          error ? fail(error) : resolve(stream),
        );
      } catch (error) {
        fail(error);
      }
    });
  }

  /** Ends the connection and everything on it, and those to the jump hosts. Resolves when it is closed. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#reason ??= new StaghornError(
      'cancelled',
      `the connection to ${this.host} was closed on this side`,
      {
        context: { host: this.host },
      },
    );
    const timer = setTimeout(() => this.#carrier.stream.destroy(), closeGraceMs);
    this.#client.end();
    await this.closed;
    clearTimeout(timer);
  }
}
