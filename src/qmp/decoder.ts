import { QmpError } from './errors.ts';
import type { JsonValue } from './json.ts';
import { parseMessage } from './messages.ts';
import type { QmpMessage } from './messages.ts';

const NEWLINE = 0x0a;
const INITIAL_BYTES = 4096;

/**
 * Bytes to messages. QEMU ends each message with CR LF and puts no line break inside one (unless its monitor
 * was made with `pretty=on`, which this decoder refuses as malformed).
 *
 * Invariants: at most `maxMessageBytes` are kept, in one buffer that grows by doubling; after a fault nothing
 * more is decoded; what came whole before the fault is still returned, however the bytes were chunked.
 */
export class QmpDecoder {
  readonly #maxMessageBytes: number;
  readonly #text = new TextDecoder('utf-8', { fatal: true });
  #kept: Buffer = Buffer.alloc(0);
  #keptBytes = 0;
  #failure: QmpError | undefined;

  /** @param maxMessageBytes the longest line accepted, in bytes, without its line feed. */
  constructor(maxMessageBytes: number) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  /** Set once the stream is beyond use; look at it after each push. */
  get failure(): QmpError | undefined {
    return this.#failure;
  }

  /** Bytes of a message that has not ended yet. */
  get pendingBytes(): number {
    return this.#keptBytes;
  }

  /**
   * Returns the messages that end in this chunk. A fault in the chunk is left in `failure`, behind the messages
   * that came before it.
   * @throws QmpError 'oversize' or 'protocol' if the stream failed in an earlier chunk.
   */
  push(chunk: Uint8Array): QmpMessage[] {
    if (this.#failure !== undefined) throw this.#failure;
    const messages: QmpMessage[] = [];
    try {
      this.#decode(chunk, messages);
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      this.#failure = error;
      this.#kept = Buffer.alloc(0);
      this.#keptBytes = 0;
    }
    return messages;
  }

  #decode(chunk: Uint8Array, messages: QmpMessage[]): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      const line = this.#completeLine(chunk.subarray(start, end));
      start = end + 1;
      const message = this.#parseLine(line);
      if (message !== undefined) messages.push(message);
    }
    this.#keep(chunk.subarray(start));
  }

  #completeLine(tail: Uint8Array): Uint8Array {
    this.#checkSize(tail.length);
    if (this.#keptBytes === 0) return tail;
    this.#keep(tail);
    const line = this.#kept.subarray(0, this.#keptBytes);
    this.#keptBytes = 0;
    return line;
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
      throw new QmpError('oversize', `a message is larger than ${this.#maxMessageBytes} bytes`);
    }
  }

  #parseLine(line: Uint8Array): QmpMessage | undefined {
    let value: JsonValue;
    try {
      const text = this.#text.decode(line);
      if (text.trim() === '') return undefined;
      value = JSON.parse(text) as JsonValue;
    } catch (cause) {
      const beginning = Buffer.from(line.subarray(0, 100)).toString('latin1');
      throw new QmpError('protocol', `a line is not JSON: ${JSON.stringify(beginning)}`, { cause });
    }
    return parseMessage(value);
  }
}
