import { StaghornError } from '../errors/index.ts';
import { transportLimits } from './limits.ts';

const headerEnd = Buffer.from('\r\n\r\n');

/**
 * Takes a byte stream apart into messages, framed by Content-Length headers as in the base protocol of the
 * Language Server Protocol 3.17. Sans-I/O. Once it has thrown, the stream is out of step and must be given up.
 */
export class FrameDecoder {
  readonly #maxMessageBytes: number;
  #chunks: Buffer[] = [];
  #bufferedBytes = 0;
  #bodyBytes: number | undefined;

  constructor(maxMessageBytes: number) {
    this.#maxMessageBytes = maxMessageBytes;
  }

  /**
   * The messages that are complete with this chunk, parsed.
   * @throws StaghornError 'protocol-violation' on a bad header, a message over the limit, or a body that is not JSON
   */
  push(chunk: Buffer): unknown[] {
    this.#chunks.push(chunk);
    this.#bufferedBytes += chunk.length;
    const messages: unknown[] = [];
    for (;;) {
      this.#bodyBytes ??= this.#takeHeader();
      if (this.#bodyBytes === undefined || this.#bufferedBytes < this.#bodyBytes) return messages;
      messages.push(parseBody(this.#take(this.#bodyBytes)));
      this.#bodyBytes = undefined;
    }
  }

  #takeHeader(): number | undefined {
    if (this.#bufferedBytes === 0) return undefined;
    const buffered = this.#join();
    const end = buffered.subarray(0, transportLimits.maxHeaderBytes).indexOf(headerEnd);
    if (end < 0) {
      if (buffered.length < transportLimits.maxHeaderBytes) return undefined;
      throw violation(`no end of header within ${transportLimits.maxHeaderBytes} bytes`, buffered);
    }
    const header = this.#take(end + headerEnd.length);
    const length = /^content-length:[ \t]*(\d{1,15})[ \t]*$/im.exec(header.toString('latin1'))?.[1];
    if (length === undefined) throw violation('a header without Content-Length', header);
    const lengthBytes = Number(length);
    if (lengthBytes > this.#maxMessageBytes) throw oversize('received', lengthBytes, this.#maxMessageBytes);
    return lengthBytes;
  }

  #take(sizeBytes: number): Buffer {
    const buffered = this.#join();
    const rest = buffered.subarray(sizeBytes);
    this.#chunks = rest.length > 0 ? [rest] : [];
    this.#bufferedBytes = rest.length;
    return buffered.subarray(0, sizeBytes);
  }

  #join(): Buffer {
    const [first] = this.#chunks;
    const joined = first !== undefined && this.#chunks.length === 1 ? first : Buffer.concat(this.#chunks);
    this.#chunks = [joined];
    return joined;
  }
}

/** Header and body of one message. @throws StaghornError 'protocol-violation' if it is over the limit */
export function encodeFrame(message: unknown, maxMessageBytes: number): Buffer {
  const body = JSON.stringify(message);
  const bodyBytes = Buffer.byteLength(body);
  if (bodyBytes > maxMessageBytes) throw oversize('cannot send', bodyBytes, maxMessageBytes);
  return Buffer.from(`Content-Length: ${bodyBytes}\r\n\r\n${body}`);
}

function parseBody(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'));
  } catch (error) {
    throw violation('a message that is not JSON', body, error);
  }
}

function oversize(verb: string, sizeBytes: number, limitBytes: number): StaghornError {
  return new StaghornError(
    'protocol-violation',
    `${verb} a message of ${sizeBytes} bytes; the limit is ${limitBytes} bytes`,
  );
}

// A stray line on an agent's standard output is the usual cause, so the error quotes what came.
function violation(what: string, bytes: Buffer, cause?: unknown): StaghornError {
  const quoted = JSON.stringify(bytes.subarray(0, 120).toString('latin1'));
  return new StaghornError('protocol-violation', `received ${what}: ${quoted}`, { cause });
}
