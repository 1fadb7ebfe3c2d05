import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { OvsdbError } from './errors.ts';
import type { Transport, TransportHandlers } from './transport.ts';
import { Waiter } from './waiter.ts';
import type { WaitOptions } from './waiter.ts';

/**
 * Connects to a listening unix socket.
 * @throws OvsdbError 'connect-failed' (with Node's own error as its cause), 'timeout', 'aborted'.
 */
export async function connectUnixSocket(path: string, options: WaitOptions = {}): Promise<Transport> {
  const socket = connect({ path });
  const connected = new Waiter<void>({ what: `connecting to ${path}`, ...options });
  socket.once('connect', () => {
    connected.resolve();
  });
  // Stays for the life of the socket: an 'error' that nobody listens to ends the process.
  socket.on('error', (cause) => {
    connected.reject(
      new OvsdbError('connect-failed', `cannot connect to ${path}: ${cause.message}`, { cause }),
    );
  });
  try {
    await connected.promise;
  } catch (error) {
    socket.destroy();
    throw error;
  }
  return new UnixSocketTransport(socket);
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

  write(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  close(): void {
    this.#socket.destroy();
  }
}
