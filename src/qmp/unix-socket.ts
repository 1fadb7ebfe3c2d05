import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { QmpError } from './errors.ts';
import type { Transport, TransportHandlers } from './transport.ts';
import { Waiter } from './waiter.ts';
import type { WaitOptions } from './waiter.ts';

/**
 * Connects to a listening unix socket.
 * @throws QmpError 'connect-failed' (with Node's own error as its cause), 'no-greeting' if the socket's queue of
 * waiting clients is full, 'timeout', 'aborted'.
 */
export async function connectUnixSocket(path: string, options: WaitOptions = {}): Promise<Transport> {
  const socket = connect({ path });
  const connected = new Waiter<void>({ what: `connecting to ${path}`, ...options });
  socket.once('connect', () => {
    connected.resolve();
  });
  // Stays for the life of the socket: an 'error' that nobody listens to ends the process.
  socket.on('error', (cause) => {
    connected.reject(connectError(path, cause));
  });
  try {
    await connected.promise;
  } catch (error) {
    socket.destroy();
    throw error;
  }
  return new UnixSocketTransport(socket);
}

function connectError(path: string, cause: Error): QmpError {
  // unix(7): EAGAIN from connect means that the listener's backlog is full of clients not yet accepted.
  if ('code' in cause && cause.code === 'EAGAIN') {
    return new QmpError('no-greeting', `${path}: other clients hold this QMP socket and wait for it`, {
      cause,
    });
  }
  return new QmpError('connect-failed', `cannot connect to ${path}: ${cause.message}`, { cause });
}

class UnixSocketTransport implements Transport {
  readonly #socket: Socket;
  #error: Error | undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('error', (error) => {
      this.#error = error;
    });
  }

  get fd(): number | undefined {
    return descriptorOf(this.#socket);
  }

  get unwrittenBytes(): number {
    return this.#socket.writableLength;
  }

  start(handlers: TransportHandlers): void {
    if (this.#socket.closed) {
      handlers.onClosed(this.#error);
      return;
    }
    this.#socket.on('data', (chunk: Buffer) => {
      handlers.onData(chunk);
    });
    this.#socket.once('close', () => {
      handlers.onClosed(this.#error);
    });
  }

  leaveAlone(): () => void {
    const handle = handleOf(this.#socket);
    this.#socket.cork();
    // `pause` of a stream goes on reading until its buffer is full.
    handle?.readStop?.();
    return () => {
      if (!this.#socket.destroyed) handle?.readStart?.();
      this.#socket.uncork();
    };
  }

  write(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  close(): void {
    this.#socket.destroy();
  }
}

interface SocketHandle {
  readonly fd?: number;
  readStart?(): void;
  readStop?(): void;
}

/** Node gives a socket's descriptor only on its internal handle; this is the one place that looks there. */
const handleOf = (socket: Socket): SocketHandle | null =>
  (socket as Socket & { readonly _handle?: SocketHandle | null })._handle ?? null;

function descriptorOf(socket: Socket): number | undefined {
  const fd = handleOf(socket)?.fd;
  return fd === undefined || fd < 0 ? undefined : fd;
}
