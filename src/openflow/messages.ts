import { OpenFlowError } from './errors.ts';

/** The header of every message (OpenFlow Switch Specification 1.5.1, section 7.1.1). */
const headerBytes = 8;

/** Of the types, those that a dump takes (section 7.1, enum ofp_type). */
export const messageType = {
  hello: 0,
  error: 1,
  echoRequest: 2,
  echoReply: 3,
  multipartRequest: 18,
  multipartReply: 19,
} as const;

export interface OpenFlowMessage {
  readonly version: number;
  readonly type: number;
  readonly xid: number;
  readonly body: Buffer;
}

export function encodeMessage({ version, type, xid, body }: OpenFlowMessage): Buffer {
  const header = Buffer.alloc(headerBytes);
  header.writeUInt8(version, 0);
  header.writeUInt8(type, 1);
  header.writeUInt16BE(headerBytes + body.length, 2);
  header.writeUInt32BE(xid, 4);
  return Buffer.concat([header, body]);
}

/** Takes a byte stream apart into messages, of at most 64 KiB each. Once it has thrown the stream is out of step. */
export class OpenFlowDecoder {
  #pending: Buffer = Buffer.alloc(0);

  /** @throws OpenFlowError 'protocol' */
  push(chunk: Uint8Array): OpenFlowMessage[] {
    this.#pending = Buffer.concat([this.#pending, chunk]);
    const messages: OpenFlowMessage[] = [];
    for (let message = this.#take(); message !== null; message = this.#take()) messages.push(message);
    return messages;
  }

  #take(): OpenFlowMessage | null {
    const bytes = this.#pending;
    if (bytes.length < headerBytes) return null;
    const length = bytes.readUInt16BE(2);
    if (length < headerBytes) throw new OpenFlowError('protocol', `a message of ${length} bytes`);
    if (bytes.length < length) return null;
    this.#pending = bytes.subarray(length);
    return {
      version: bytes.readUInt8(0),
      type: bytes.readUInt8(1),
      xid: bytes.readUInt32BE(4),
      body: bytes.subarray(headerBytes, length),
    };
  }
}
