import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { OvsdbServer } from '../ovsdb/ovsdb-server.ts';
import { until } from './network-lab.ts';

/** The kernel's own datapath where the kernel has one, else that of user space. */
export type Datapath = 'system' | 'netdev';
export const datapath: Datapath = existsSync('/sys/module/openvswitch') ? 'system' : 'netdev';

/** Started earlier, ovs-vswitchd 3.1 believes that the machine has 0 processors, and handles no upcalls. */
const LEAST_UPTIME_SECONDS = 11;
const SLOW_MS = 60_000;

const uptimeSeconds = () => Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]);

/** An Open vSwitch of the network namespace that it is started in, with a database of its own. */
export class DatapathSwitch {
  readonly #database = new OvsdbServer();
  #daemon: ChildProcess | undefined;

  private constructor() {}

  static async start(): Promise<DatapathSwitch> {
    await until(() => uptimeSeconds() > LEAST_UPTIME_SECONDS, 'the machine is up for long enough', SLOW_MS);
    const made = new DatapathSwitch();
    try {
      await made.#database.listening();
      made.#run();
      await until(() => existsSync(made.#control), 'ovs-vswitchd listens', SLOW_MS);
      return made;
    } catch (error) {
      await made.stop();
      throw error;
    }
  }

  get #control(): string {
    return join(this.#database.directory, 'switch.ctl');
  }

  #run(): void {
    const { directory, path } = this.#database;
    const only = datapath === 'netdev' ? ['--disable-system'] : [];
    const log = [`--log-file=${join(directory, 'switch.log')}`, '-vconsole:off', '-vsyslog:off'];
    this.#daemon = spawn(
      'ovs-vswitchd',
      [...only, `--unixctl=${this.#control}`, '--no-chdir', ...log, `unix:${path}`],
      { stdio: 'ignore', env: { ...process.env, OVS_RUNDIR: directory } },
    );
  }

  vsctl(...args: string[]): string {
    const settings = ['--timeout=60', `--db=unix:${this.#database.path}`, ...args];
    return execFileSync('ovs-vsctl', settings, { encoding: 'utf8' });
  }

  appctl(...args: string[]): string {
    return execFileSync('ovs-appctl', [`--target=${this.#control}`, ...args], { encoding: 'utf8' });
  }

  bridge(name: string, ...settings: string[]): void {
    this.vsctl('add-br', name, '--', 'set', 'bridge', name, `datapath_type=${datapath}`, ...settings);
  }

  /** Settings are those of the port ("tag=5"), then after "--" further commands. */
  port(bridge: string, name: string, ...settings: string[]): void {
    this.vsctl('add-port', bridge, name, ...settings);
    const error = this.vsctl('get', 'interface', name, 'error').trim();
    if (error !== '[]') throw new Error(`${name}: ${error}`);
  }

  async stop(): Promise<void> {
    const daemon = this.#daemon;
    if (daemon !== undefined && daemon.exitCode === null && daemon.signalCode === null) {
      const exit = once(daemon, 'exit');
      daemon.kill('SIGKILL');
      await exit;
    }
    await this.#database.destroy();
  }
}
