import type { Readable, Writable } from 'node:stream';
import type { Client, ClientChannel } from 'ssh2';
import { StaghornError, messageOf } from '../errors/index.ts';
import { transportLimits } from './limits.ts';

/** How a remote command ended; both are null if the connection was lost before it told. */
export interface ExitStatus {
  readonly code: number | null;
  readonly signal: string | null;
}

export interface RemoteProcess {
  readonly stdin: Writable;
  readonly stdout: Readable;
  /** Must be read, or the other streams stop too once its window is full. */
  readonly stderr: Readable;
  /** Never rejects. */
  readonly exit: Promise<ExitStatus>;
  /**
   * Gives the channel up: the command finds its input ended and its output closed. It also gets a SIGTERM, which
   * OpenSSH passes on only to users other than root (9.2, session.c, session_signal_req).
   */
  close(): void;
}

export interface RunOptions {
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Written to standard input, which is then closed. */
  readonly input?: string | undefined;
}

export interface RunResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** @throws StaghornError 'host-unreachable' if the channel cannot be opened */
export function execCommand(client: Client, host: string, command: string): Promise<RemoteProcess> {
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      const text = `host ${host}: cannot run a command: ${messageOf(error)}`;
      reject(new StaghornError('host-unreachable', text, { cause: error, context: { host } }));
    };
    try {
      client.exec(command, (error, channel) => (error ? fail(error) : resolve(remoteProcess(channel))));
    } catch (error) {
      fail(error);
    }
  });
}

function remoteProcess(channel: ClientChannel): RemoteProcess {
  const exit = new Promise<ExitStatus>((resolve) => {
    channel.on('exit', (code: number | null, signal?: string) => resolve({ code, signal: signal ?? null }));
    channel.on('close', () => resolve({ code: null, signal: null }));
  });
  channel.on('error', () => undefined);
  return {
    stdin: channel,
    stdout: channel,
    stderr: channel.stderr,
    exit,
    close: () => {
      if (channel.writable) channel.signal('TERM');
      channel.close();
      channel.destroy();
    },
  };
}

/**
 * Runs a command to its end. Of each output, the first MiB is kept.
 * @throws StaghornError 'deadline-exceeded', 'cancelled', 'host-unreachable' (also when the connection is lost)
 */
export async function runCommand(
  client: Client,
  host: string,
  command: string,
  options: RunOptions,
): Promise<RunResult> {
  options.signal?.throwIfAborted();
  const process = await execCommand(client, host, command);
  const { timeoutMs, signal } = options;
  return new Promise((resolve, reject) => {
    const fail = (code: 'deadline-exceeded' | 'cancelled', problem: string) => {
      release();
      process.close();
      reject(
        new StaghornError(code, `host ${host}: "${excerpt(command)}" ${problem}`, { context: { host } }),
      );
    };
    const timer = setTimeout(
      () => fail('deadline-exceeded', `did not end within ${timeoutMs} ms`),
      timeoutMs,
    );
    const onAbort = () => fail('cancelled', 'was cancelled');
    const release = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
    signal?.addEventListener('abort', onAbort, { once: true });
    const stdout = new OutputHead(process.stdout);
    const stderr = new OutputHead(process.stderr);
    process.stdout.once('close', () => {
      release();
      void process.exit.then(({ code, signal: by }) => {
        if (code !== null || by !== null) return resolve({ code, stdout: stdout.text, stderr: stderr.text });
        const text = `host ${host}: the connection was lost while "${excerpt(command)}" ran`;
        reject(new StaghornError('host-unreachable', text, { context: { host } }));
      });
    });
    process.stdin.end(options.input ?? '');
  });
}

/** Reads a stream to its end and keeps the first bytes of it. */
class OutputHead {
  readonly #chunks: Buffer[] = [];
  #roomBytes: number = transportLimits.runOutputBytes;

  constructor(stream: Readable) {
    stream.on('data', (chunk: Buffer) => {
      const kept = chunk.subarray(0, this.#roomBytes);
      if (kept.length === 0) return;
      this.#roomBytes -= kept.length;
      this.#chunks.push(kept);
    });
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString('utf8');
  }
}

function excerpt(command: string): string {
  return command.length > 80 ? `${command.slice(0, 77)}...` : command;
}
