import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { run } from '../../lab/command.ts';

const schema = '/usr/share/openvswitch/vswitch.ovsschema';
const startDeadlineMs = 20_000;
const pollMs = 10;
/**
 * The switch gets processor time before the endpoints: it must not be the one that loses frames. Where the kernel groups
 * processes by session, a niceness counts only within the group, which has one of its own (sched(7), "autogroup").
 */
const niceness = '-10';

/** An Open vSwitch of the process's present network namespace, with everything of its own below one directory. */
export class OpenVSwitch {
  /** Its run directory. */
  readonly directory = mkdtempSync(join(tmpdir(), 'staghorn-gate-bench-ovs-'));
  readonly #processes: ChildProcess[] = [];
  #pid = 0;

  static async start(signal: AbortSignal): Promise<OpenVSwitch> {
    const made = new OpenVSwitch();
    try {
      await made.#start(signal);
      return made;
    } catch (error) {
      await made.stop();
      throw error;
    }
  }

  /** ovs-vsctl(8); returns when the switch has done as told. */
  async vsctl(...args: readonly string[]): Promise<void> {
    await run(['ovs-vsctl', `--db=unix:${this.#path('db.sock')}`, '--timeout=20', ...args]);
  }

  /** A command of ovs-vswitchd(8), such as "tnl/neigh/set". */
  async appctl(...args: readonly string[]): Promise<void> {
    await run(['ovs-appctl', '-t', this.#path('vswitchd.ctl'), ...args]);
  }

  /** Of ovs-vswitchd. */
  get pid(): number {
    return this.#pid;
  }

  /** Where it notes each frame that it could not send. */
  get log(): string {
    return this.#path('vswitchd.log');
  }

  async stop(): Promise<void> {
    for (const process of this.#processes.reverse()) {
      if (process.exitCode !== null || process.signalCode !== null) continue;
      const ended = once(process, 'exit');
      process.kill('SIGKILL');
      await ended;
    }
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #start(signal: AbortSignal): Promise<void> {
    const database = this.#path('conf.db');
    await run(['ovsdb-tool', 'create', database, schema], { signal });
    const quiet = ['--no-chdir', '-vconsole:off', '-vsyslog:off'];
    const socket = `punix:${this.#path('db.sock')}`;
    this.#spawn([
      'ovsdb-server',
      database,
      `--remote=${socket}`,
      `--unixctl=${this.#path('db.ctl')}`,
      '-vfile:off',
      ...quiet,
    ]);
    await this.#appears('db.sock', signal);
    await this.vsctl('--no-wait', 'init');
    const log = `--log-file=${this.log}`;
    const place = [`unix:${this.#path('db.sock')}`, `--unixctl=${this.#path('vswitchd.ctl')}`, log];
    // Told their routes, tunnels lose nothing when a tap's reader comes or goes (docs/lab.md).
    const system = ['--disable-system', '--disable-system-route'];
    // nice(1) becomes what it starts.
    this.#pid = this.#spawn([
      'nice',
      '-n',
      niceness,
      'ovs-vswitchd',
      '--pidfile',
      ...place,
      ...system,
      ...quiet,
    ]);
    await this.#appears('vswitchd.ctl', signal);
    // A kernel that groups no processes has no such file.
    await writeFile(`/proc/${this.#pid}/autogroup`, niceness).catch(() => undefined);
    // Each error counts: without this it notes a few a minute.
    await this.appctl('vlog/disable-rate-limit', 'netdev_linux');
  }

  #spawn(argv: readonly string[]): number {
    const [file, ...args] = argv as [string, ...string[]];
    const directory = this.directory;
    const places = { OVS_RUNDIR: directory, OVS_LOGDIR: directory, OVS_DBDIR: directory };
    const env = { ...process.env, ...places };
    const child = spawn(file, args, { stdio: 'ignore', env, detached: true });
    this.#processes.push(child);
    return child.pid ?? 0;
  }

  async #appears(name: string, signal: AbortSignal): Promise<void> {
    const limit = performance.now() + startDeadlineMs;
    while (!existsSync(this.#path(name))) {
      if (performance.now() > limit) throw new Error(`Open vSwitch did not start: no ${name}`);
      await delay(pollMs, undefined, { signal });
    }
  }

  #path(name: string): string {
    return join(this.directory, name);
  }
}
