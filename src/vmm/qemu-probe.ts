import { spawn } from 'node:child_process';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import { messageOf } from '../errors/index.ts';
import { QmpClient } from '../qmp/index.ts';

/** What a QEMU binary says that it can be. */
export interface QemuAbilities {
  /** "7.2.22" */
  readonly version: string;
  /** Machine types, full names and aliases. */
  readonly machines: ReadonlySet<string>;
  /** CPU models, each with the features that this accelerator does not give on this host. */
  readonly cpus: ReadonlyMap<string, readonly string[]>;
}

const startBoundMs = 10_000;
const connectPollMs = 3;

/** Asks QEMU binaries what they can be, once each: a binary that was replaced is asked again. */
export class QemuProbes {
  readonly #answers = new Map<string, Promise<QemuAbilities | string>>();

  /** @returns why it says nothing, if it does not */
  async ask(exe: string, accelerator: string, signal: AbortSignal): Promise<QemuAbilities | string> {
    const file = await stat(exe).catch(messageOf);
    if (typeof file === 'string') return file;
    const key = JSON.stringify([exe, accelerator, file.ino, file.size, file.mtimeMs]);
    const known = this.#answers.get(key);
    if (known !== undefined) return known;
    const asked = probe(exe, accelerator).catch((error: unknown) => {
      this.#answers.delete(key);
      return messageOf(error);
    });
    this.#answers.set(key, asked);
    const answer = await asked;
    signal.throwIfAborted();
    return answer;
  }
}

/** A QEMU without a machine answers questions about all of them. */
async function probe(exe: string, accelerator: string): Promise<QemuAbilities> {
  const directory = await mkdtemp(join(tmpdir(), 'staghorn-probe-'));
  const path = join(directory, 'qmp');
  const child = spawn(
    exe,
    [
      ...['-nodefaults', '-no-user-config', '-display', 'none'],
      ...['-machine', 'none', '-accel', accelerator, '-qmp', `unix:${path},server=on,wait=off`],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  let printed = '';
  let ended: string | null = null;
  child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  const exited = new Promise<void>((resolve) => child.once('close', () => resolve()));
  child.once('error', (error) => (ended = messageOf(error)));
  child.once('exit', (code, signal) => (ended = `it ended with ${signal ?? `exit code ${code}`}`));
  try {
    const qmp = await connect(path, () => ended);
    try {
      return await readAbilities(qmp);
    } finally {
      await qmp.close();
    }
  } catch (error) {
    throw new Error(`${messageOf(error)}${printed === '' ? '' : `; it printed: ${printed.trim()}`}`, {
      cause: error,
    });
  } finally {
    child.kill('SIGKILL');
    if (child.pid !== undefined) await exited;
    await rm(directory, { recursive: true, force: true });
  }
}

async function connect(path: string, ended: () => string | null): Promise<QmpClient> {
  const startedAtMs = performance.now();
  for (;;) {
    const reason = ended();
    if (reason !== null) throw new Error(reason);
    const qmp = await QmpClient.connect({ path, timeoutMs: startBoundMs }).catch(() => null);
    if (qmp !== null) return qmp;
    if (performance.now() - startedAtMs > startBoundMs) throw new Error('it does not answer by QMP');
    await delay(connectPollMs);
  }
}

async function readAbilities(qmp: QmpClient): Promise<QemuAbilities> {
  const [{ qemu }, machines, cpus] = await Promise.all([
    qmp.execute('query-version'),
    qmp.execute('query-machines'),
    qmp.execute('query-cpu-definitions'),
  ]);
  return {
    version: `${qemu.major}.${qemu.minor}.${qemu.micro}`,
    machines: new Set(machines.flatMap(({ name, alias }) => (alias === undefined ? [name] : [name, alias]))),
    cpus: new Map(cpus.map((cpu) => [cpu.name, cpu['unavailable-features'] ?? []])),
  };
}
