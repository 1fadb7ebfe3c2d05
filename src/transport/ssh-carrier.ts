import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { StaghornError, messageOf } from '../errors/index.ts';
import { transportLimits } from './limits.ts';
import { OutputTail } from './output-tail.ts';
import type { SshSettings } from './ssh-settings.ts';

/** The byte stream under an SSH connection. */
export interface SshCarrier {
  readonly stream: Duplex;
  /** What a ProxyCommand had to say, for errors. */
  describe(): string;
  close(): void;
}

/** @throws StaghornError 'host-unreachable' that names host, address and port; the signal's reason if it aborts */
export function connectTcp(settings: SshSettings, signal: AbortSignal): Promise<SshCarrier> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: settings.hostName, port: settings.port, noDelay: true });
    const onAbort = () => {
      socket.destroy();
      reject(signal.reason as Error);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    socket.once('error', (error) => {
      signal.removeEventListener('abort', onAbort);
      reject(unreachable(settings, describeConnectError(error), error));
    });
    socket.once('connect', () => {
      signal.removeEventListener('abort', onAbort);
      socket.removeAllListeners('error');
      // From here on ssh2 listens; an error in between must not be uncaught.
      socket.on('error', () => undefined);
      resolve({ stream: socket, describe: () => '', close: () => void socket.destroy() });
    });
  });
}

/** ProxyCommand of ssh_config(5): run by the user's shell, its standard input and output are the connection. */
export function spawnProxyCommand(command: string): SshCarrier {
  // A group of its own, so that what the shell starts ends with it.
  const child = spawn('/bin/sh', ['-c', `exec ${command}`], {
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
  });
  const stderr = new OutputTail(child.stderr, transportLimits.stderrTailBytes);
  const stream = Duplex.from({ readable: child.stdout, writable: child.stdin });
  stream.on('error', () => undefined);
  child.on('error', (error) => stream.destroy(error));
  const close = () => {
    stream.destroy();
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    try {
      process.kill(-child.pid, 'SIGTERM');
    } catch {
      // It ended in the meantime.
    }
  };
  stream.on('close', close);
  return {
    stream,
    describe: () => ` (ProxyCommand "${command}"${stderr.text === '' ? '' : `: ${stderr.text}`})`,
    close,
  };
}

export function unreachable(settings: SshSettings, problem: string, cause?: unknown): StaghornError {
  const { alias, hostName, port } = settings;
  return new StaghornError('host-unreachable', `host ${alias} (${hostName} port ${port}): ${problem}`, {
    cause,
    context: { host: alias },
  });
}

// With several addresses Node throws an AggregateError without a message of its own.
function describeConnectError(error: Error): string {
  if (error instanceof AggregateError) return error.errors.map((each) => messageOf(each)).join('; ');
  if ('code' in error && error.code === 'ENOTFOUND') return 'its name cannot be resolved';
  if ('code' in error && error.code === 'EAI_AGAIN') return 'its name cannot be resolved for now';
  return error.message;
}
