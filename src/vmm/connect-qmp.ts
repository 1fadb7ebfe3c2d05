import { asStaghornError, messageOf, StaghornError } from '../errors/index.ts';
import { QmpClient, QmpError, type QmpResult } from '../qmp/index.ts';
import { readProcessStat } from './process-identity.ts';
import type { QemuProcess } from './qemu-process.ts';

/** How long a QMP socket may take to greet; one that is held by somebody else never does. */
export const greetingTimeoutMs = 3_000;

/**
 * Connects to the first of the VM's QMP sockets that answers.
 * @throws StaghornError 'vm-unfit' that says why none of them does.
 */
export async function connectQmp(
  process: QemuProcess,
  signal?: AbortSignal,
): Promise<{ qmp: QmpClient; path: string }> {
  if (process.qmpSockets.length === 0) {
    throw unfit(process.name, 'it has no QMP socket; launch it with -qmp unix:PATH,server=on,wait=off');
  }
  const reasons: string[] = [];
  for (const path of process.qmpSockets) {
    try {
      return { qmp: await QmpClient.connect({ path, signal, timeoutMs: greetingTimeoutMs }), path };
    } catch (error) {
      signal?.throwIfAborted();
      reasons.push(messageOf(error));
    }
  }
  const stopped = await stoppedReason(process.pid);
  throw unfit(process.name, stopped ?? reasons.join('; '));
}

/** An HMP command over QMP, for what QMP itself does not tell. */
export async function hmp(qmp: QmpClient, commandLine: string): Promise<string> {
  return qmp.execute('human-monitor-command', { 'command-line': commandLine });
}

/** A property of a QOM object; null where this QEMU does not have it. */
export async function qomGet(
  qmp: QmpClient,
  path: string,
  property: string,
): Promise<QmpResult<string> | null> {
  try {
    return await qmp.execute('qom-get', { path, property });
  } catch (error) {
    if (error instanceof QmpError && error.code === 'command-failed') return null;
    throw error;
  }
}

/** What QMP reports, as an error that names the VM. */
export function vmError(name: string, doing: string, error: unknown): StaghornError {
  if (error instanceof StaghornError) return error;
  const wrapped = asStaghornError(error, 'vm-failed', `VM ${name}: ${doing}: `);
  return new StaghornError(wrapped.code, wrapped.message, { cause: error, context: { vm: name } });
}

/** A process that a signal or a debugger has stopped answers as little as one whose socket somebody else holds. */
async function stoppedReason(pid: number): Promise<string | null> {
  const state = (await readProcessStat(pid))?.state;
  if (state !== 'T' && state !== 't') return null;
  const by = state === 'T' ? 'by a signal (SIGSTOP); send it a SIGCONT' : 'by a debugger';
  return `its QEMU (process ${pid}) does not answer on its QMP socket, because it is stopped ${by}`;
}

function unfit(name: string, reason: string): StaghornError {
  return new StaghornError('vm-unfit', `VM ${name} cannot be controlled: ${reason}`, {
    context: { vm: name },
  });
}
