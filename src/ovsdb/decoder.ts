import { OvsdbError } from './errors.ts';
import type { JsonValue } from './json.ts';
import { parseMessage } from './messages.ts';
import type { OvsdbMessage } from './messages.ts';
import { ValueScanner } from './value-scanner.ts';

const INITIAL_BYTES = 4096;

/**
 * Bytes to messages: JSON objects one after another, without delimiters (RFC 7047, section 4).
 *
 * Invariants: at most `maxMessageBytes` are kept, in one buffer that grows by doubling; after a fault nothing
 * more is decoded; what came whole before the fault is still returned, however the bytes were chunked.
 */
export class OvsdbDecoder {
  readonly #maxMessageBytes: number;
  readonly #text = new TextDecoder('utf-8', { fatal: true });
  readonly #scanner = new ValueScanner();
  #kept: Buffer = Buffer.alloc(0);
  #keptBytes = 0;
  #failure: OvsdbError | undefined;

  /** @param maxMessageBytes the largest message accepted, in bytes from its first brace to its last. */
  constructor(maxMessageBytes: number) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Set once the stream is beyond use; look at it after each push. */
  get failure(): OvsdbError | undefined {
    return this.#failure;
  }

  /** Bytes of a message that has not ended yet. */
  get pendingBytes(): number {
    return this.#keptBytes;
  }

  /**
   * Returns the messages that end in this chunk. A fault in the chunk is left in `failure`, behind the messages
   * that came before it.
   * @throws OvsdbError 'oversize' or 'protocol' if the stream failed in an earlier chunk.
   */
  push(chunk: Uint8Array): OvsdbMessage[] {
    if (this.#failure !== undefined) throw this.#failure;
    const messages: OvsdbMessage[] = [];
    try {
      this.#decode(chunk, messages);
    } catch (error) {
      if (!(error instanceof OvsdbError)) throw error;
      this.#failure = error;
      this.#kept = Buffer.alloc(0);
      this.#keptBytes = 0;
    }
    return messages;
  }

  #decode(chunk: Uint8Array, messages: OvsdbMessage[]): void {
    let position = 0;
    while (position < chunk.length) {
      const start = this.#scanner.inside ? position : this.#scanner.findStart(chunk, position);
      if (start === chunk.length) return;
      const end = this.#scanner.findEnd(chunk, start);
      if (end === -1) {
        this.#keep(chunk.subarray(start));
        return;
      }
      messages.push(this.#parse(this.#complete(chunk.subarray(start, end))));
      position = end;
    }
  }

  #complete(tail: Uint8Array): Uint8Array {
    this.#checkSize(tail.length);
    if (this.#keptBytes === 0) return tail;
    this.#keep(tail);
    const message = this.#kept.subarray(0, this.#keptBytes);
    this.#keptBytes = 0;
    return message;
  }

  #keep(bytes: Uint8Array): void {
    this.#checkSize(bytes.length);
    const neededBytes = this.#keptBytes + bytes.length;
    if (neededBytes > this.#kept.length) {
      const doubled = Math.max(INITIAL_BYTES, this.#kept.length * 2, neededBytes);
      const grown = Buffer.alloc(Math.min(doubled, this.#maxMessageBytes));
      grown.set(this.#kept.subarray(0, this.#keptBytes));
      this.#kept = grown;
    }
    this.#kept.set(bytes, this.#keptBytes);
    this.#keptBytes = neededBytes;
  }

  #checkSize(addedBytes: number): void {
    if (this.#keptBytes + addedBytes > this.#maxMessageBytes) {
      throw new OvsdbError('oversize', `a message is larger than ${this.#maxMessageBytes} bytes`);
    }
  }

  #parse(bytes: Uint8Array): OvsdbMessage {
    let value: JsonValue;
    try {
      value = JSON.parse(this.#text.decode(bytes)) as JsonValue;
    } catch (cause) {
      const beginning = Buffer.from(bytes.subarray(0, 100)).toString('latin1');
      throw new OvsdbError('protocol', `a message is not JSON: ${JSON.stringify(beginning)}`, { cause });
    }
    return parseMessage(value);
  }
}
