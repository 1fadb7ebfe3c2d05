import { execFileSync, spawn, spawnSync } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until } from './network-lab.ts';

/**
 * An Open vSwitch of the test's own, with the userspace datapath, in the network namespace that the test has entered.
 * While it runs, OVS_RUNDIR names its sockets for the process and for every command that it starts.
 */
export class OpenVSwitch {
  readonly #directory = mkdtempSync(join(tmpdir(), `staghorn-ovs-${process.pid}-`));
  readonly #processes: ChildProcess[] = [];

  static async start(): Promise<OpenVSwitch> {
    const ovs = new OpenVSwitch();
    try {
      await ovs.#start();
      return ovs;
    } catch (error) {
      await ovs.stop();
      throw error;
    }
  }

  async #start(): Promise<void> {
    this.select();
    const database = join(this.#directory, 'conf.db');
    execFileSync('ovsdb-tool', ['create', database, '/usr/share/openvswitch/vswitch.ovsschema']);
    this.#spawn('ovsdb-server', [database, `--remote=punix:${join(this.#directory, 'db.sock')}`]);
    await until(() => existsSync(join(this.#directory, 'db.sock')), 'ovsdb-server listens');
    this.vsctl('--no-wait', 'init');
    await this.startSwitch();
  }

  /** Of several, the one that commands are for. */
  select(): void {
    process.env['OVS_RUNDIR'] = this.#directory;
  }

  async startSwitch(): Promise<void> {
    const daemon = this.#spawn('ovs-vswitchd', ['--disable-system']);
    const socket = join(this.#directory, `ovs-vswitchd.${daemon.pid}.ctl`);
    // The socket is there before it is listened to.
    const answers = () => spawnSync('ovs-appctl', ['-t', socket, 'version']).status === 0;
    await until(() => existsSync(socket) && answers(), 'ovs-vswitchd answers');
  }

  #spawn(daemon: string, args: readonly string[]): ChildProcess {
    const quiet = ['--pidfile', '--no-chdir', '-vconsole:off', '-vsyslog:off', '-vfile:off'];
    const child = spawn(daemon, [...args, ...quiet], { stdio: 'ignore' });
    this.#processes.push(child);
    return child;
  }

  vsctl(...args: string[]): string {
    return execFileSync('ovs-vsctl', ['--retry', '--timeout=10', ...args], { encoding: 'utf8' });
  }

  ofctl(...args: string[]): string {
    return execFileSync('ovs-ofctl', args, { encoding: 'utf8' });
  }

  appctl(...args: string[]): string {
    return execFileSync('ovs-appctl', args, { encoding: 'utf8' });
  }

  /** A bridge with these devices as its ports; each may bring settings of its port, such as "tag=5". */
  bridge(name: string, ports: Readonly<Record<string, readonly string[]>> = {}): void {
    this.vsctl('add-br', name, '--', 'set', 'bridge', name, 'datapath_type=netdev');
    for (const [port, settings] of Object.entries(ports)) this.vsctl('add-port', name, port, ...settings);
  }

  /** The OpenFlow number of an interface. */
  ofport(iface: string): number {
    return Number(this.vsctl('get', 'interface', iface, 'ofport'));
  }

  async stop(): Promise<void> {
    for (const child of this.#processes) {
      child.kill('SIGKILL');
      if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    }
    delete process.env['OVS_RUNDIR'];
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
