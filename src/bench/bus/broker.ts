import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { StaghornError } from '../../errors/index.ts';
import { brokerVhost, writeBrokerFile, writeBrokerFiles, type BrokerUser } from './broker-files.ts';

export interface BrokerPlace {
  /** Of the broker, with its prefix length. */
  readonly address: string;
  /** This machine's end of the wire: an address of its own, or a bridge that the wire is plugged into. */
  readonly near: { readonly address: string } | { readonly bridge: string };
}

export interface BrokerFileOptions {
  readonly tls?: boolean;
  /** Default: the right one. */
  readonly password?: string;
  /** Of the file; default: the user's. */
  readonly name?: string;
}

/** A wire of this process's own. */
export function ownPlace(): BrokerPlace {
  const subnet = `198.19.${200 + (process.pid % 50)}`;
  return { address: `${subnet}.2/30`, near: { address: `${subnet}.1/30` } };
}

const program = '/usr/lib/rabbitmq/bin/rabbitmq-server';
const ip = (...args: string[]) => execFileSync('ip', args, { stdio: 'pipe' });

/**
 * A real RabbitMQ of one's own: in a network namespace at the end of a wire, in a PID namespace so that nothing of it
 * outlives it (the broker starts a port mapper daemon), its files in a directory that goes with it.
 */
export class OwnBroker {
  readonly address: string;
  readonly directory = mkdtempSync(join(tmpdir(), 'sg-amqp-'));
  readonly passwords: Readonly<Record<BrokerUser, string>> = {
    controller: randomBytes(9).toString('base64url'),
    agent: randomBytes(9).toString('base64url'),
  };
  readonly #namespace = `sg-amqp-${process.pid}`;
  readonly #wire = `sgamqp${process.pid}`;
  #process: ChildProcess | undefined;
  #log = '';

  private constructor(address: string) {
    this.address = address;
  }

  static async start(place: BrokerPlace = ownPlace()): Promise<OwnBroker> {
    const broker = new OwnBroker(place.address.split('/', 1)[0]!);
    try {
      broker.#lay(place);
      writeBrokerFiles(broker.directory, broker.address, broker.passwords);
      await broker.run();
      return broker;
    } catch (error) {
      await broker.stop();
      throw error;
    }
  }

  /** A broker file for a user. */
  fileFor(
    user: BrokerUser,
    { tls = false, password = this.passwords[user], name }: BrokerFileOptions = {},
  ): string {
    const url = `${tls ? 'amqps' : 'amqp'}://${this.address}/${brokerVhost}`;
    return writeBrokerFile(join(this.directory, `${name ?? user}.yaml`), { user, password, url });
  }

  /** Starts it (again), and waits until it serves. */
  async run(): Promise<void> {
    const { directory } = this;
    const env = {
      PATH: process.env['PATH'],
      HOME: join(directory, 'home'),
      // Told that somebody else sees to it, the script becomes the broker instead of waiting for it.
      detached: '1',
      RABBITMQ_NODENAME: 'staghorn@localhost',
      RABBITMQ_MNESIA_BASE: join(directory, 'mnesia'),
      RABBITMQ_LOG_BASE: join(directory, 'log'),
      RABBITMQ_CONFIG_FILE: join(directory, 'rabbitmq.conf'),
      RABBITMQ_CONF_ENV_FILE: join(directory, 'none'),
      RABBITMQ_ENABLED_PLUGINS_FILE: join(directory, 'plugins'),
      RABBITMQ_PID_FILE: join(directory, 'pid'),
      // Spinning schedulers would take the time of everything else on a small machine.
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '+sbwt none +sbwtdcpu none +sbwtdio none',
    };
    const inNamespaces = [
      'netns',
      'exec',
      this.#namespace,
      'unshare',
      '--pid',
      '--fork',
      '--kill-child',
      '--mount-proc',
    ];
    this.#log = '';
    const child = spawn('ip', [...inNamespaces, program], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    for (const output of [child.stdout, child.stderr]) {
      output.on('data', (chunk: Buffer) => (this.#log = (this.#log + chunk.toString()).slice(-64_000)));
    }
    const ended = once(child, 'exit');
    while (!this.#log.includes('Server startup complete')) {
      await Promise.race([once(child.stdout, 'data'), ended]);
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new StaghornError('internal', `the broker did not start: ${this.#log.slice(-4000)}`);
      }
    }
  }

  /** As by kill -9: nothing is said to anybody. */
  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    // The broker itself, the first process of its namespace: all others end with it, and unshare(1) sees to it.
    const [pid] = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').split(' ');
    process.kill(Number(pid) || child.pid!, 'SIGKILL');
    await ended;
  }

  /** Cuts the wire, or mends it: neither side hears of it. */
  setReachable(reachable: boolean): void {
    ip('-n', this.#namespace, 'link', 'set', 'wire', reachable ? 'up' : 'down');
  }

  async stop(): Promise<void> {
    await this.kill();
    try {
      // Takes the wire with it.
      ip('netns', 'delete', this.#namespace);
    } catch {
      // It was not made.
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  #lay({ address, near }: BrokerPlace): void {
    chmodSync(this.directory, 0o700);
    ip('netns', 'add', this.#namespace);
    ip('-n', this.#namespace, 'link', 'set', 'lo', 'up');
    ip('link', 'add', this.#wire, 'type', 'veth', 'peer', 'name', 'wire', 'netns', this.#namespace);
    if ('bridge' in near) ip('link', 'set', this.#wire, 'master', near.bridge);
    else ip('address', 'add', near.address, 'dev', this.#wire);
    ip('link', 'set', this.#wire, 'up');
    ip('-n', this.#namespace, 'address', 'add', address, 'dev', 'wire');
    ip('-n', this.#namespace, 'link', 'set', 'wire', 'up');
  }
}
