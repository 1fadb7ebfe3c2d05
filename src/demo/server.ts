import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { ApiClient } from '../cli/client.ts';
import { findServer } from '../cli/connection.ts';
import { StaghornError } from '../errors/index.ts';

const startBoundMs = 30_000;
const stopBoundMs = 20_000;
const pollMs = 50;

/** A `staghorn serve` of one's own: its state in a directory that goes with it, its port the kernel's choice. */
export class OwnServer {
  readonly client: ApiClient;
  readonly logFile: string;
  readonly #process: ChildProcess;
  readonly #stateDir: string;

  private constructor(client: ApiClient, process: ChildProcess, stateDir: string, logFile: string) {
    this.client = client;
    this.#process = process;
    this.#stateDir = stateDir;
    this.logFile = logFile;
  }

  /** @throws StaghornError 'internal' with what it printed, if it does not start */
  static async start(): Promise<OwnServer> {
    const stateDir = await mkdtemp(join(tmpdir(), 'staghorn-server-'));
    const logFile = join(stateDir, 'serve.log');
    const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
    const log = openSync(logFile, 'w', 0o600);
    const child = spawn(
      process.execPath,
      [main, 'serve', '--listen', '127.0.0.1:0', '--state-dir', stateDir],
      {
        stdio: ['ignore', log, log],
      },
    );
    closeSync(log);
    const startedAtMs = performance.now();
    while (performance.now() - startedAtMs < startBoundMs && child.exitCode === null) {
      const url = await readFile(join(stateDir, 'url'), 'utf8').catch(() => '');
      if (url.endsWith('\n')) {
        const connection = await findServer({ url: url.trim() }, { STAGHORN_STATE_DIR: stateDir });
        return new OwnServer(new ApiClient(connection), child, stateDir, logFile);
      }
      await delay(pollMs);
    }
    child.kill('SIGKILL');
    const printed = await readFile(logFile, 'utf8').catch(() => '');
    await rm(stateDir, { recursive: true, force: true });
    throw new StaghornError('internal', `the server did not start: ${printed.trim().slice(-2000)}`);
  }

  get pid(): number {
    return this.#process.pid!;
  }

  /** Asks it to end, insists after a while, and removes its state. */
  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = new Promise((resolve) => this.#process.once('exit', resolve));
      this.#process.kill('SIGTERM');
      const insist = setTimeout(() => this.#process.kill('SIGKILL'), stopBoundMs);
      await ended;
      clearTimeout(insist);
    }
    await rm(this.#stateDir, { recursive: true, force: true });
  }
}
