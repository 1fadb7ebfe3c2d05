import { setMaxListeners } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { createMessageConnection, type MessageConnection } from 'vscode-jsonrpc/node.js';
import { StaghornError, messageOf } from '../errors/index.ts';
import { transportLimits } from './limits.ts';
import { StreamMessageReader, StreamMessageWriter } from './rpc-stream.ts';

/** Two byte streams to a peer, whatever carries them. */
export interface RpcConnection {
  readonly readable: Readable;
  readonly writable: Writable;
  /** The peer's name in errors. */
  readonly host?: string | undefined;
  /** Default: 64 MiB. Both sides should have the same. */
  readonly maxMessageBytes?: number | undefined;
  /** Asked once when the streams have ended by themselves: why did they? Must settle soon. */
  readonly explainEnd?: (() => Promise<StaghornError>) | undefined;
}

/**
 * One end of an RPC connection. It is open, then ending (the streams are useless, the reason is being found out),
 * then closed; `closed` and `closedSignal` carry the reason, and it never opens again.
 */
export class RpcPeer {
  readonly rpc: MessageConnection;
  readonly closed: Promise<StaghornError>;
  readonly #connection: RpcConnection;
  readonly #closing = new AbortController();
  #ending = false;

  constructor(connection: RpcConnection) {
    const maxMessageBytes = connection.maxMessageBytes ?? transportLimits.maxMessageBytes;
    const reader = new StreamMessageReader(connection.readable, maxMessageBytes);
    const writer = new StreamMessageWriter(connection.writable, maxMessageBytes, (answer) =>
      reader.inject(answer),
    );
    // It logs only messages that belong to nothing: what a peer sends wrongly ends the connection by its own path.
    this.rpc = createMessageConnection(reader, writer);
    this.#connection = connection;
    // One listener for each call that waits, and as many again for the owner.
    setMaxListeners(2 * transportLimits.maxPendingCalls, this.closedSignal);
    this.closed = new Promise((resolve) => {
      this.closedSignal.addEventListener('abort', () => resolve(this.closedSignal.reason as StaghornError), {
        once: true,
      });
    });
    this.rpc.onClose(() => void this.#end(undefined));
    this.rpc.onError(([error]) => void this.#end(error));
  }

  get closedSignal(): AbortSignal {
    return this.#closing.signal;
  }

  get host(): string | undefined {
    return this.#connection.host;
  }

  get ending(): boolean {
    return this.#ending;
  }

  listen(): void {
    this.rpc.listen();
  }

  /** Ends the connection for a reason of our own; what was written before is still sent. */
  close(reason = new StaghornError('cancelled', 'the connection was closed on this side')): void {
    if (this.closedSignal.aborted) return;
    this.#ending = true;
    this.#closing.abort(reason);
    this.rpc.dispose();
    const { readable, writable } = this.#connection;
    writable.end();
    // Where both are one stream, destroying it would lose what is still to be written: what comes is let go by.
    if (Object.is(readable, writable)) readable.resume();
    else readable.destroy();
  }

  async #end(error: Error | undefined): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    this.close(error instanceof StaghornError ? this.#named(error) : await this.#explain(error));
  }

  async #explain(error: Error | undefined): Promise<StaghornError> {
    try {
      const explained = await this.#connection.explainEnd?.();
      if (explained !== undefined) return explained;
    } catch (failure) {
      error ??= failure instanceof Error ? failure : new Error(messageOf(failure));
    }
    const text = `the connection to ${this.host ?? 'the peer'} ended${error === undefined ? '' : `: ${error.message}`}`;
    return new StaghornError('agent-lost', text, { cause: error, context: { host: this.host } });
  }

  #named(error: StaghornError): StaghornError {
    const { code, message, cause, context } = error;
    return new StaghornError(code, message, {
      cause,
      context: { ...context, host: context.host ?? this.host },
    });
  }
}
