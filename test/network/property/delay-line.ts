import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { promisify } from 'node:util';

const microsecondsAMillisecond = 1000;

/** A process that is the wire between hosts, and keeps every frame for as long as the wire is said to be (delay-line.c). */
export class DelayLine {
  readonly #process: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#process = child;
  }

  static async start(options: {
    /** Where the devices of the hosts' ends are. */
    namespace: string;
    /** By the host that they lead to. */
    devices: readonly string[];
    /** How long frames are under way to each host. */
    delaysMs: readonly number[];
    /** Takes the program. */
    directory: string;
  }): Promise<DelayLine> {
    const { namespace, devices, delaysMs, directory } = options;
    const program = join(directory, 'delay-line');
    const source = join(import.meta.dirname, 'delay-line.c');
    const flags = ['-std=gnu11', '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra', '-Wconversion', '-Werror'];
    await promisify(execFile)('gcc', [...flags, '-o', program, source]);
    const ends = devices.map((device, host) => `${device}:${delaysMs[host]! * microsecondsAMillisecond}`);
    const inside = ['nsenter', `--net=/run/netns/${namespace}`, program, ...ends];
    // As the switches (switch.ts): what it is late with would be lost there.
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'chrt', '--rr', '1', ...inside], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('the delay line did not start')));
    ended.catch(() => undefined);
    await Promise.race([once(child.stdout, 'data'), ended]);
    return new DelayLine(child);
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exit = once(this.#process, 'exit');
    this.#process.kill('SIGKILL');
    await exit;
  }
}
