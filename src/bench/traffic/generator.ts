import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { compileGenerator } from './compile.ts';
import { Endpoint } from './endpoint.ts';
import { configOf } from './plan.ts';
import type { EndpointPlan } from './plan.ts';

/**
 * A process that plays endpoints (test/traffic). They stand still until they are told to go on. It ends with this
 * process, however that ends.
 */
export class Generator {
  readonly #directory: string;
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable>;
  #endpoints: readonly Endpoint[] = [];
  #errors = '';
  /** Of the generator itself. */
  #pid: number | undefined;

  private constructor(directory: string, binary: string) {
    this.#directory = directory;
    // Not as a child of this process: a cut stops whoever reads a tap by ptrace, and Node.js takes the stop of a
    // child for its end (uv__wait_children in libuv's src/unix/process.c). setsid waits for it, and ends as it does.
    const argv = ['--fork', '--wait', binary, join(directory, 'config')];
    this.#process = spawn('setsid', argv, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#process.stderr.on('data', (text: Buffer) => (this.#errors += text.toString()));
    this.#process.stdin.on('error', () => undefined);
  }

  /** Opens the ports of all endpoints, and connects to each. */
  static async start(plans: readonly EndpointPlan[]): Promise<Generator> {
    const binary = await compileGenerator();
    const directory = await mkdtemp(join(tmpdir(), `staghorn-traffic-${process.pid}-`));
    const controlOf = (name: string) => join(directory, name);
    await writeFile(join(directory, 'config'), configOf(plans, controlOf));
    const generator = new Generator(directory, binary);
    try {
      await generator.#ready();
      generator.#endpoints = await Promise.all(
        plans.map(({ name }) => Endpoint.connect(name, controlOf(name))),
      );
      generator.#pid = (await generator.#endpoints[0]?.hello())?.pid;
      return generator;
    } catch (error) {
      await generator.kill();
      throw error;
    }
  }

  get pid(): number {
    return this.#pid ?? 0;
  }

  get endpoints(): readonly Endpoint[] {
    return this.#endpoints;
  }

  /** Where another process may connect to an endpoint. */
  controlPath(name: string): string {
    return join(this.#directory, name);
  }

  /** As `kill -9` of VMs: nothing is saved. */
  async kill(): Promise<void> {
    for (const endpoint of this.#endpoints) endpoint.close();
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const exit = once(this.#process, 'exit');
      if (this.#pid === undefined) this.#process.kill('SIGKILL');
      else process.kill(this.#pid, 'SIGKILL');
      await exit;
    }
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #ready(): Promise<void> {
    const exited = once(this.#process, 'exit').then(() => {
      throw new Error(this.#errors.trim() || 'the traffic generator ended');
    });
    await Promise.race([once(this.#process.stdout, 'data'), exited]);
    exited.catch(() => undefined);
  }
}
