import { execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { MemoryRegion } from '../../src/native/fork.ts';

/** test/native/tracee.c, compiled and running. */
export class Tracee {
  readonly #directory = mkdtempSync(join(tmpdir(), 'staghorn-tracee-'));
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  private constructor(mode: 'spin' | 'sleep') {
    const binary = join(this.#directory, 'tracee');
    const source = fileURLToPath(new URL('./tracee.c', import.meta.url));
    execFileSync('gcc', ['-O2', '-mavx2', '-o', binary, source]);
    this.#process = spawn(binary, [mode], { stdio: ['ignore', 'pipe', 'inherit'] });
    if (this.#process.stdout === null) throw new Error('no stdout');
    this.#lines = createInterface(this.#process.stdout)[Symbol.asyncIterator]();
  }

  static async start(mode: 'spin' | 'sleep'): Promise<{ tracee: Tracee; region: MemoryRegion }> {
    const tracee = new Tracee(mode);
    const [address = '', length = ''] = (await tracee.#line()).split(' ');
    return { tracee, region: { address: BigInt(`0x${address}`), length: Number(length) } };
  }

  get pid(): number {
    return this.#process.pid ?? 0;
  }

  async #line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`the tracee ended: ${this.#process.exitCode} ${this.#process.signalCode}`);
    return value;
  }

  async report(): Promise<{ failures: number; signals: number; rounds: number }> {
    this.#process.kill('SIGTERM');
    const [failures = Number.NaN, signals = Number.NaN, rounds = Number.NaN] = (await this.#line())
      .split(' ')
      .map(Number);
    return { failures, signals, rounds };
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill('SIGKILL');
      await once(this.#process, 'exit');
    }
    rmSync(this.#directory, { recursive: true, force: true });
  }
}
