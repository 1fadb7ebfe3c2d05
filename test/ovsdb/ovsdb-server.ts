import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

export const serverBinary = '/usr/sbin/ovsdb-server';
const schema = '/usr/share/openvswitch/vswitch.ovsschema';

/** An ovsdb-server with an empty Open_vSwitch database of its own, and no switch. */
export class OvsdbServer {
  readonly directory: string;
  readonly path: string;
  readonly process: ChildProcess;

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), `staghorn-ovsdb-${process.pid}-`));
    this.path = join(this.directory, 'db.sock');
    const database = join(this.directory, 'conf.db');
    execFileSync('ovsdb-tool', ['create', database, schema]);
    this.process = spawn(
      serverBinary,
      [
        ...[`--remote=punix:${this.path}`, '--remote=db:Open_vSwitch,Open_vSwitch,manager_options'],
        ...[
          `--unixctl=${join(this.directory, 'ctl')}`,
          '--no-chdir',
          '-vconsole:off',
          '-vsyslog:off',
          database,
        ],
      ],
      { stdio: 'ignore' },
    );
  }

  /** Resolves when a socket of this server listens: its first one, or another. */
  async listening(path = this.path): Promise<void> {
    while (!isListening(path)) {
      if (this.process.exitCode !== null)
        throw new Error(`ovsdb-server exited with ${this.process.exitCode}`);
      await setTimeout(5);
    }
  }

  async destroy(): Promise<void> {
    this.process.kill('SIGKILL');
    if (this.process.exitCode === null && this.process.signalCode === null) await once(this.process, 'exit');
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Whether a unix socket of this name accepts connections: flag __SO_ACCEPTCON in /proc/net/unix. */
function isListening(path: string): boolean {
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .some((line) => line.endsWith(` ${path}`) && line.split(' ')[3] === '00010000');
}
