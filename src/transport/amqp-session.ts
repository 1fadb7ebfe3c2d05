import { Readable, Writable } from 'node:stream';
import { StaghornError } from '../errors/index.ts';
import type { Envelope } from './amqp-envelope.ts';
import { transportLimits } from './limits.ts';
import type { RpcConnection } from './rpc-peer.ts';

export interface SessionOptions {
  /** The peer's name in errors. */
  readonly host: string;
  /** Where the other side's bytes count from: messages up to this number belong to an earlier session. */
  readonly afterNumber: number;
  readonly maxMessageBytes?: number | undefined;
  /** Sends what was written; a promise if the broker takes no more for now. */
  readonly send: (chunk: Buffer) => Promise<void> | undefined;
  /** Our side has ended its writing: it is over. */
  readonly onFinished: () => void;
}

/**
 * One session between a controller and an agent, as the two byte streams that RPC needs, and what is known of the
 * peer. Executed at most once: what does not count up came twice, and is dropped.
 */
export class BrokerSession implements RpcConnection {
  readonly readable: Readable;
  readonly writable: Writable;
  readonly host: string;
  readonly maxMessageBytes: number | undefined;
  /** Settles with the reason when the other side or the broker has ended it. */
  readonly ended: Promise<StaghornError>;
  #tellEnd: (reason: StaghornError) => void = () => undefined;
  #lastNumber: number;
  #heardAtMs = performance.now();
  #reason: StaghornError | undefined;

  constructor({ host, afterNumber, maxMessageBytes, send, onFinished }: SessionOptions) {
    this.host = host;
    this.maxMessageBytes = maxMessageBytes;
    this.#lastNumber = afterNumber;
    this.ended = new Promise((resolve) => (this.#tellEnd = resolve));
    this.readable = new Readable({ read: () => undefined });
    this.writable = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        const waiting = send(chunk);
        if (waiting === undefined) done();
        else void waiting.then(() => done());
      },
      final: (done) => {
        if (this.#reason === undefined) onFinished();
        done();
      },
    });
  }

  /** Whether a message of the peer is new; if so, the peer was heard. */
  admits({ number }: Envelope): boolean {
    if (number <= this.#lastNumber) return false;
    this.#lastNumber = number;
    this.#heardAtMs = performance.now();
    return true;
  }

  receive(bytes: Buffer): void {
    if (this.#reason === undefined) this.readable.push(bytes);
  }

  /** The streams end, for this reason. */
  end(reason: StaghornError): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#tellEnd(reason);
    this.readable.push(null);
  }

  endIfSilent(): void {
    const silentMs = performance.now() - this.#heardAtMs;
    if (silentMs > transportLimits.brokerSilenceMs) {
      this.end(this.lost(`was not heard for ${Math.round(silentMs)} ms`));
    }
  }

  lost(what: string): StaghornError {
    const { host } = this;
    return new StaghornError('agent-lost', `${host} ${what}`, { context: { host } });
  }

  readonly explainEnd = (): Promise<StaghornError> =>
    Promise.resolve(this.#reason ?? this.lost('ended the session'));
}

/** In pieces that every broker takes. */
export function* piecesOf(bytes: Buffer): Generator<Buffer> {
  const { brokerPieceBytes } = transportLimits;
  for (let i = 0; i < bytes.length; i += brokerPieceBytes) yield bytes.subarray(i, i + brokerPieceBytes);
}
