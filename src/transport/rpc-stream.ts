import type { Readable, Writable } from 'node:stream';
import {
  AbstractMessageReader,
  AbstractMessageWriter,
  Message,
  type DataCallback,
  type Disposable,
  type MessageReader,
  type MessageWriter,
} from 'vscode-jsonrpc/node.js';
import { StaghornError, asStaghornError } from '../errors/index.ts';
import { transportLimits } from './limits.ts';
import { refusal } from './rpc-errors.ts';
import { FrameDecoder, encodeFrame } from './rpc-framing.ts';

/** Reads messages from a byte stream; the first violation ends the reading. */
export class StreamMessageReader extends AbstractMessageReader implements MessageReader {
  readonly #readable: Readable;
  readonly #decoder: FrameDecoder;
  #callback: DataCallback | undefined;

  constructor(readable: Readable, maxMessageBytes: number) {
    super();
    this.#readable = readable;
    this.#decoder = new FrameDecoder(maxMessageBytes);
  }

  listen(callback: DataCallback): Disposable {
    const onData = (chunk: Buffer) => this.#receive(chunk);
    const onEnd = () => this.fireClose();
    const onError = (error: Error) => this.fireError(error);
    this.#callback = callback;
    // The error listener stays: a stream may fail after the connection was given up.
    this.#readable.on('error', onError).on('end', onEnd).on('close', onEnd).on('data', onData);
    const dispose = () => {
      this.#callback = undefined;
      this.#readable.off('data', onData).off('end', onEnd).off('close', onEnd);
    };
    return { dispose };
  }

  /** Hands a message to the connection as if it had come from the peer. */
  inject(message: Message): void {
    this.#callback?.(message);
  }

  #receive(chunk: Buffer): void {
    try {
      for (const message of this.#decoder.push(chunk)) this.#callback?.(message as Message);
    } catch (error) {
      this.#callback = undefined;
      this.#readable.removeAllListeners('data').resume();
      this.fireError(
        asStaghornError(error, 'protocol-violation', 'received a message that cannot be handled: '),
      );
    }
  }
}

/**
 * Writes messages to a byte stream, in order, and never lets more than a bound of bytes wait. `write` does not
 * reject for a request or a response: vscode-jsonrpc 8.2.1 turns that into an unhandled rejection
 * (lib/common/connection.js, sendRequest). What is over the limit is answered with an error instead.
 */
export class StreamMessageWriter extends AbstractMessageWriter implements MessageWriter {
  readonly #writable: Writable;
  readonly #maxMessageBytes: number;
  readonly #answerLocally: (message: Message) => void;
  #queuedBytes = 0;

  constructor(writable: Writable, maxMessageBytes: number, answerLocally: (message: Message) => void) {
    super();
    this.#writable = writable;
    this.#maxMessageBytes = maxMessageBytes;
    this.#answerLocally = answerLocally;
    writable.on('error', (error) => this.fireError(error)).on('close', () => this.fireClose());
  }

  async write(message: Message): Promise<void> {
    let frame: Buffer;
    try {
      frame = encodeFrame(message, this.#maxMessageBytes);
    } catch (error) {
      return this.#refuse(message, error);
    }
    const limitBytes = transportLimits.maxQueuedMessages * this.#maxMessageBytes;
    if (this.#queuedBytes + frame.length > limitBytes) {
      const text = `the peer does not read: ${this.#queuedBytes} bytes wait for it, the limit is ${limitBytes}`;
      return this.fireError(new StaghornError('agent-lost', text), message);
    }
    await this.#send(frame, message);
  }

  end(): void {
    this.#writable.end();
  }

  #send(frame: Buffer, message: Message): Promise<void> {
    this.#queuedBytes += frame.length;
    return new Promise((resolve) => {
      this.#writable.write(frame, (error) => {
        this.#queuedBytes -= frame.length;
        if (error) this.fireError(error, message);
        resolve();
      });
    });
  }

  async #refuse(message: Message, error: unknown): Promise<void> {
    if (Message.isRequest(message)) {
      this.#answerLocally({ ...refusal(message.id, error), jsonrpc: message.jsonrpc });
    } else if (Message.isResponse(message)) {
      await this.#send(encodeFrame(refusal(message.id, error), this.#maxMessageBytes), message);
    } else {
      throw error;
    }
  }
}
