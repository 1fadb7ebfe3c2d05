import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';

export const qemuBinary = '/usr/bin/qemu-system-x86_64';

/** A QEMU without a guest: a PC with 16 MiB, stopped before its first instruction. */
export class BareQemu {
  readonly path: string;
  readonly process: ChildProcess;
  readonly #directory: string;

  constructor() {
    this.#directory = mkdtempSync(join(tmpdir(), `staghorn-qmp-${process.pid}-`));
    this.path = join(this.#directory, 'qmp.sock');
    this.process = spawn(
      qemuBinary,
      [
        ...['-accel', 'tcg', '-M', 'pc', '-m', '16', '-display', 'none', '-nodefaults', '-S'],
        ...['-qmp', `unix:${this.path},server=on,wait=off`],
      ],
      { stdio: 'ignore' },
    );
  }

  /** Resolves when the socket listens. */
  async listening(): Promise<void> {
    while (!isListening(this.path)) {
      if (this.process.exitCode !== null) throw new Error(`QEMU exited with ${this.process.exitCode}`);
      await setTimeout(5);
    }
  }

  async exited(): Promise<void> {
    if (this.process.exitCode === null && this.process.signalCode === null) await once(this.process, 'exit');
  }

  async destroy(): Promise<void> {
    this.process.kill('SIGKILL');
    await this.exited();
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

/** Whether a unix socket of this name accepts connections: flag __SO_ACCEPTCON in /proc/net/unix. */
function isListening(path: string): boolean {
  return readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .some((line) => line.endsWith(` ${path}`) && line.split(' ')[3] === '00010000');
}
