import { spawn, type ChildProcess } from 'node:child_process';
import { open, readFile, type FileHandle } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { messageOf, StaghornError } from '../errors/index.ts';
import { closeDescriptor, createMemfd, sendDescriptor } from '../native/descriptors.ts';
import { QmpClient } from '../qmp/index.ts';
import {
  all,
  formatCommandLine,
  forRestore,
  parseCommandLine,
  withMachineType,
  type CommandOption,
  type RestoreBackend,
} from './command-line.ts';
import { withoutAnnouncements } from './announcements.ts';
import { readQemuProcess, type QemuProcess } from './qemu-process.ts';

/** What it takes to start a VM again from what was stored of it. */
export interface LaunchSpec {
  readonly name: string;
  readonly exe: string;
  /** What starts it: a program and its arguments, which then becomes QEMU. */
  readonly launcher?: readonly string[];
  readonly args: readonly string[];
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly qmpSocket: string;
  /** Its full name: an alias such as "pc" means another one to another QEMU. */
  readonly machineType: string;
  /** Beside the agent's own. */
  readonly environment?: Readonly<Record<string, string>>;
  readonly ramFile: string;
  readonly ramBytes: number;
  /** RAM in memory objects beside main memory. */
  readonly backends: readonly RestoreBackend[];
  /** Where QEMU's messages go; the end of it is quoted if it fails. */
  readonly logFile: string;
}

export interface LaunchedVm {
  readonly process: QemuProcess;
  readonly qmp: QmpClient;
  readonly path: string;
}

const connectPollMs = 3;
const startBoundMs = 20_000;
const loadBoundMs = 60_000;
const quotedLogBytes = 2_000;

/**
 * Starts a QEMU that maps the stored RAM privately and waits, paused, for its device state.
 * It is a session of its own: it outlives the agent.
 * @throws StaghornError 'vm-failed' with what QEMU printed.
 */
export async function launchPaused(spec: LaunchSpec, signal?: AbortSignal): Promise<LaunchedVm> {
  const args = launchArguments(spec);
  const log = await open(spec.logFile, 'w', 0o600);
  try {
    const [program = spec.exe, ...before] = [...(spec.launcher ?? []), spec.exe];
    const child = spawn(program, [...before, ...args], {
      cwd: spec.cwd,
      env: { ...process.env, ...spec.environment },
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    });
    child.unref();
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    try {
      return await connectToLaunched(spec, child, signal);
    } catch (error) {
      // Whoever gives up the launch knows no VM that it could end.
      if (child.pid !== undefined && child.kill('SIGKILL')) await ended;
      throw error;
    }
  } finally {
    await log.close();
  }
}

/** The arguments that a restored QEMU runs with. */
export function launchArguments(spec: LaunchSpec): string[] {
  // Not daemonized by itself: a daemonized QEMU prints nowhere why a load failed.
  const options = parseCommandLine(spec.args).filter(({ name }) => name !== 'daemonize');
  const restored = withMachineType(forRestore(options, spec), spec.machineType);
  return formatCommandLine([...restored, ...runAs(options, spec)]);
}

/**
 * Stored RAM is root's alone, so QEMU is started by root, opens it, and only then becomes the user that it ran as
 * (os_setup_post in QEMU's os-posix.c comes after the memory objects).
 */
function runAs(options: readonly CommandOption[], { uid, gid }: LaunchSpec): CommandOption[] {
  if (uid === 0 || all(options, 'runas').length > 0) return [];
  return [{ name: 'runas', value: `${uid}:${gid}` }];
}

async function connectToLaunched(
  spec: LaunchSpec,
  child: ChildProcess,
  signal?: AbortSignal,
): Promise<LaunchedVm> {
  const failed = spawnFailure(child);
  const startedAtMs = performance.now();
  for (;;) {
    signal?.throwIfAborted();
    const ended = failed();
    if (ended !== null) throw await launchError(spec, ended);
    if (performance.now() - startedAtMs > startBoundMs) {
      child.kill('SIGKILL');
      throw await launchError(spec, `no QMP greeting at ${spec.qmpSocket} within ${startBoundMs} ms`);
    }
    // The socket of the VM that was there before may still exist: only one that our child greets on counts.
    const qmp = await QmpClient.connect({ path: spec.qmpSocket, timeoutMs: startBoundMs, signal }).catch(
      () => null,
    );
    // Looked for only now: to read /proc at each turn would cost more than QEMU takes to start.
    const process = qmp === null || child.pid === undefined ? null : await readQemuProcess(child.pid);
    if (qmp !== null && process !== null) return { process, qmp, path: spec.qmpSocket };
    await qmp?.close();
    await delay(connectPollMs, undefined, { signal });
  }
}

function spawnFailure(child: ChildProcess): () => string | null {
  let failure: string | null = null;
  child.once('error', (error) => (failure = messageOf(error)));
  child.once('exit', (code, signal) => (failure = `it ended with ${signal ?? `exit code ${code}`}`));
  return () => failure;
}

/**
 * Loads a device state into a VM that `launchPaused` started; it stays paused. Announcements are switched off
 * first: RARP and gratuitous ARP would tell the system under test that something happened.
 * @throws StaghornError 'vm-failed' with what QEMU printed.
 */
export async function loadDeviceState(vm: LaunchedVm, spec: LaunchSpec, state: Buffer): Promise<void> {
  const { qmp } = vm;
  const file = await inMemory(withoutAnnouncements(state));
  try {
    await qmp.execute('migrate-set-parameters', { 'announce-rounds': 0 });
    await qmp.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
    const getfd = qmp.prepare('getfd', { fdname: 'staghorn-state' }, { timeoutMs: 5_000 });
    await sendDescriptor({ socketFd: qmp.fd, fd: file.fd, bytes: getfd.bytes });
    await getfd.reply;
    const loaded = migrationEnd(qmp);
    await qmp.execute('migrate-incoming', { uri: 'fd:staghorn-state' });
    const status = await loaded;
    if (status !== 'completed') throw new Error(`the migration ended as "${status}"`);
  } catch (error) {
    throw await launchError(spec, `loading its device state: ${messageOf(error)}`, error);
  } finally {
    await file.close();
  }
}

/** As a file that can be read from its beginning by whoever gets the descriptor. */
async function inMemory(content: Buffer): Promise<FileHandle> {
  const memfd = createMemfd({ name: 'staghorn-device-state' });
  try {
    const path = `/proc/self/fd/${memfd}`;
    const writable = await open(path, 'w');
    await writable.writeFile(content).finally(() => writable.close());
    return await open(path, 'r');
  } finally {
    closeDescriptor(memfd);
  }
}

async function migrationEnd(qmp: QmpClient): Promise<string> {
  const { data } = await qmp.waitEvent('MIGRATION', {
    timeoutMs: loadBoundMs,
    where: ({ data: { status } }) => status === 'completed' || status === 'failed',
  });
  return data.status;
}

async function launchError(spec: LaunchSpec, what: string, cause?: unknown): Promise<StaghornError> {
  const log = await readFile(spec.logFile, 'utf8').catch(() => '');
  const printed = log.trim() === '' ? '' : `; QEMU printed: ${log.trim().slice(-quotedLogBytes)}`;
  return new StaghornError('vm-failed', `VM ${spec.name} did not start: ${what}${printed}`, {
    cause,
    context: { vm: spec.name },
  });
}
