import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { Client } from 'ssh2';

import { createRpcClient, type RpcClient } from '../../transport/rpc.ts';
import { busContract } from './contract.ts';
import { PeerProcess } from './peer-process.ts';

/**
 * Peers behind a real sshd, an SSH connection each. Where an agent would be the session's command, sshd forwards the
 * channel to a socket of one process that holds all peers: as many hops, and no hundred processes of Node.js.
 */
export class SshPeers {
  readonly #directory = mkdtempSync(join(tmpdir(), 'sg-amqp-ssh-'));
  readonly #connections: Client[] = [];
  #sshd: ChildProcess | undefined;
  #peers: PeerProcess | undefined;
  #port = 0;

  static async start(): Promise<SshPeers> {
    const peers = new SshPeers();
    try {
      peers.#peers = await PeerProcess.start('unix', peers.#socket);
      await peers.#startSshd();
      return peers;
    } catch (error) {
      await peers.stop();
      throw error;
    }
  }

  async connect(): Promise<RpcClient<typeof busContract>> {
    const connection = new Client();
    this.#connections.push(connection);
    connection.connect({
      host: '127.0.0.1',
      port: this.#port,
      username: 'root',
      privateKey: readFileSync(join(this.#directory, 'key')),
    });
    await once(connection, 'ready');
    connection.setNoDelay(true);
    const stream = await new Promise<Duplex>((resolve, reject) => {
      connection.openssh_forwardOutStreamLocal(this.#socket, (error, channel) =>
        error ? reject(error) : resolve(channel),
      );
    });
    return createRpcClient(busContract, { readable: stream, writable: stream });
  }

  async stop(): Promise<void> {
    for (const connection of this.#connections) connection.end();
    if (this.#sshd !== undefined && this.#sshd.exitCode === null) {
      const ended = once(this.#sshd, 'exit');
      this.#sshd.kill();
      await ended;
    }
    await this.#peers?.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  get #socket(): string {
    return join(this.#directory, 'peers');
  }

  async #startSshd(): Promise<void> {
    mkdirSync('/run/sshd', { recursive: true, mode: 0o755 });
    chmodSync(this.#directory, 0o755);
    const key = join(this.#directory, 'key');
    execFileSync('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key]);
    copyFileSync(`${key}.pub`, join(this.#directory, 'authorized'));
    this.#port = await freePort();
    const config = join(this.#directory, 'sshd_config');
    writeFileSync(
      config,
      `Port ${this.#port}
ListenAddress 127.0.0.1
HostKey ${key}
AuthorizedKeysFile ${this.#directory}/authorized
StrictModes no
UsePAM no
PidFile none
PermitRootLogin yes
MaxStartups 200
`,
    );
    const sshd = spawn('/usr/sbin/sshd', ['-D', '-e', '-f', config], { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#sshd = sshd;
    const ended = once(sshd, 'exit').then(() => Promise.reject(new Error('sshd did not start')));
    ended.catch(() => undefined);
    let log = '';
    while (!log.includes('Server listening')) {
      const [chunk] = (await Promise.race([once(sshd.stderr, 'data'), ended])) as [Buffer];
      log += chunk.toString();
    }
    sshd.stderr.resume();
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
