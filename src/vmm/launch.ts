import { spawn, type ChildProcess } from 'node:child_process';
import { open, readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';

import { messageOf, StaghornError } from '../errors/index.ts';
import { sendDescriptor } from '../native/descriptors.ts';
import { QmpClient } from '../qmp/index.ts';
import { formatCommandLine, forRestore, parseCommandLine } from './command-line.ts';
import { readQemuProcess, type QemuProcess } from './qemu-process.ts';

/** What it takes to start a VM again from what was stored of it. */
export interface LaunchSpec {
  readonly name: string;
  readonly exe: string;
  readonly args: readonly string[];
  readonly cwd: string;
  readonly uid: number;
  readonly gid: number;
  readonly qmpSocket: string;
  readonly ramFile: string;
  readonly ramBytes: number;
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
  // Not daemonized by itself: a daemonized QEMU prints nowhere why a load failed.
  const options = parseCommandLine(spec.args).filter(({ name }) => name !== 'daemonize');
  const args = formatCommandLine(forRestore(options, { ramFile: spec.ramFile, ramBytes: spec.ramBytes }));
  const log = await open(spec.logFile, 'w', 0o600);
  try {
    const child = spawn(spec.exe, args, {
      cwd: spec.cwd,
      uid: spec.uid,
      gid: spec.gid,
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    });
    child.unref();
    return await connectToLaunched(spec, child, signal);
  } finally {
    await log.close();
  }
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
export async function loadDeviceState(vm: LaunchedVm, spec: LaunchSpec, stateFile: string): Promise<void> {
  const { qmp } = vm;
  const file = await open(stateFile, 'r');
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
