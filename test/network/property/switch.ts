import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const schema = '/usr/share/openvswitch/vswitch.ovsschema';
/** NETDEV_MAX_BURST of lib/dp-packet.h. */
const largestBatch = 32;
const quiet = ['--no-chdir', '-vconsole:off', '-vsyslog:off'];

/** A real Open vSwitch of its own in a network namespace: database and daemon, userspace datapath. */
export class Switch {
  /** Of its database and its sockets. */
  readonly directory: string;
  readonly #namespace: string;
  readonly #processes: ChildProcess[] = [];

  private constructor(namespace: string, directory: string) {
    this.#namespace = namespace;
    this.directory = directory;
  }

  static async start(namespace: string, directory: string): Promise<Switch> {
    await mkdir(directory);
    const made = new Switch(namespace, directory);
    try {
      await made.#start();
      return made;
    } catch (error) {
      await made.stop();
      throw error;
    }
  }

  /** One transaction; returns when the daemon has carried it out. */
  async configure(commands: readonly (readonly string[])[]): Promise<void> {
    const words = commands.flatMap((command) => ['--', ...command]);
    await run('ovs-vsctl', ['--timeout=20', `--db=unix:${this.#path('db.sock')}`, ...words]);
  }

  async tell(...words: readonly string[]): Promise<string> {
    const env = { ...process.env, OVS_RUNDIR: this.directory };
    return (await run('ovs-appctl', [...words], { env })).stdout;
  }

  /**
   * How many frames it may have failed to send: it notes that once for a batch. All ports share one packet socket;
   * once the frames that wait in the queueing discipline of one tap fill its buffer, frames for all are dropped
   * (netdev_linux_sock_batch_send in lib/netdev-linux.c).
   */
  async sendErrors(): Promise<number> {
    const log = await readFile(this.#path('vswitchd.log'), 'utf8');
    return (log.split('error sending Ethernet packet').length - 1) * largestBatch;
  }

  async stop(): Promise<void> {
    for (const child of this.#processes.splice(0).reverse()) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const exit = once(child, 'exit');
      child.kill('SIGKILL');
      await exit;
    }
  }

  #path(name: string): string {
    return join(this.directory, name);
  }

  async #start(): Promise<void> {
    await run('ovsdb-tool', ['create', this.#path('conf.db'), schema]);
    const remotes = [`--remote=punix:${this.#path('db.sock')}`, `--unixctl=${this.#path('ovsdb.ctl')}`];
    this.#spawn('ovsdb-server', [this.#path('conf.db'), ...remotes, ...quiet]);
    await this.#exists('db.sock');
    await run('ovs-vsctl', [`--db=unix:${this.#path('db.sock')}`, '--no-wait', 'init']);
    const log = `--log-file=${this.#path('vswitchd.log')}`;
    const database = `unix:${this.#path('db.sock')}`;
    // Told their routes, tunnels lose nothing when a tap's reader comes or goes (docs/lab.md).
    const system = ['--disable-system', '--disable-system-route'];
    const daemon = this.#spawn('ovs-vswitchd', [database, ...system, '--pidfile', log, ...quiet]);
    await this.#exists(`ovs-vswitchd.${daemon.pid}.ctl`);
    // Else it notes a few errors of sending a minute.
    await this.tell('vlog/disable-rate-limit', 'netdev_linux');
  }

  /**
   * It dies with the thread that started it. A switch that waits for a processor drops frames at its sockets: this
   * one comes before whatever else runs on the machine (it sleeps while there is nothing to do).
   */
  #spawn(program: string, args: readonly string[]): ChildProcess {
    const inside = ['nsenter', `--net=/run/netns/${this.#namespace}`];
    const words = ['--pdeathsig', 'KILL', 'chrt', '--rr', '1', ...inside, program, ...args];
    const env = { ...process.env, OVS_RUNDIR: this.directory, OVS_LOGDIR: this.directory };
    const child = spawn('setpriv', words, { stdio: 'ignore', env });
    this.#processes.push(child);
    return child;
  }

  async #exists(name: string): Promise<void> {
    while (!existsSync(this.#path(name))) {
      const ended = this.#processes.find(({ exitCode }) => exitCode !== null);
      if (ended !== undefined) throw new Error(`${ended.spawnargs.join(' ')} ended`);
      await sleep(5);
    }
  }
}
