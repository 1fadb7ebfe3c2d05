/**
 * Netlink messages as bytes (RFC 3549; include/uapi/linux/netlink.h), without a socket. Integers are in the
 * order of the machine, which is little-endian on everything that Staghorn runs on.
 */
export interface Attribute {
  readonly type: number;
  readonly value: Buffer | readonly Attribute[];
}

export interface Request {
  readonly type: number;
  readonly flags: number;
  /** The family's fixed header: ifinfomsg, tcmsg. */
  readonly body: Buffer;
  readonly attributes?: readonly Attribute[];
}

export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly seq: number;
  readonly body: Buffer;
}

/** The kernel's answer to one request: 0, or an errno and sometimes words. */
export interface Acknowledgement {
  readonly seq: number;
  readonly errno: number;
  readonly text: string;
}

export const flag = { request: 1, ack: 4, exclusive: 0x200, create: 0x400, dump: 0x300 } as const;
const reply = { dumpInterrupted: 0x10, capped: 0x100, textAttached: 0x200 } as const;
const ERROR = 2;
const DONE = 3;
const HEADER_BYTES = 16;
const ERROR_TEXT_ATTRIBUTE = 1;
const TYPE_MASK = 0x3fff;

const align4 = (length: number) => (length + 3) & ~3;

export function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(value >>> 0);
  return buffer;
}

/** A string with its final zero. */
export function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`, 'latin1');
}

export function textOf(value: Buffer | undefined): string {
  if (value === undefined) return '';
  const end = value.indexOf(0);
  return value.toString('latin1', 0, end < 0 ? value.length : end);
}

function encodeAttribute(attribute: Attribute): Buffer {
  const nested = !Buffer.isBuffer(attribute.value);
  const value = Buffer.isBuffer(attribute.value)
    ? attribute.value
    : Buffer.concat(attribute.value.map(encodeAttribute));
  const buffer = Buffer.alloc(align4(4 + value.length));
  buffer.writeUInt16LE(4 + value.length, 0);
  buffer.writeUInt16LE(nested ? attribute.type | 0x8000 : attribute.type, 2);
  value.copy(buffer, 4);
  return buffer;
}

/** The requests in one piece; the sequence number of each is its place, from 1. */
export function encodeRequests(requests: readonly Request[]): Buffer {
  return Buffer.concat(
    requests.map(({ type, flags, body, attributes = [] }, place) => {
      const payload = Buffer.concat([body, ...attributes.map(encodeAttribute)]);
      const header = Buffer.alloc(HEADER_BYTES);
      header.writeUInt32LE(HEADER_BYTES + payload.length, 0);
      header.writeUInt16LE(type, 4);
      header.writeUInt16LE(flags | flag.request, 6);
      header.writeUInt32LE(place + 1, 8);
      return Buffer.concat([header, payload, Buffer.alloc(align4(payload.length) - payload.length)]);
    }),
  );
}

/** Attributes by type; what follows a broken one is left out. */
export function decodeAttributes(buffer: Buffer | undefined): Map<number, Buffer> {
  const attributes = new Map<number, Buffer>();
  if (buffer === undefined) return attributes;
  for (let at = 0; at + 4 <= buffer.length;) {
    const length = buffer.readUInt16LE(at);
    if (length < 4 || at + length > buffer.length) break;
    attributes.set(buffer.readUInt16LE(at + 2) & TYPE_MASK, buffer.subarray(at + 4, at + length));
    at += align4(length);
  }
  return attributes;
}

function decodeAcknowledgement(message: Message): Acknowledgement {
  const { body, flags, seq } = message;
  const errno = body.length >= 4 ? -body.readInt32LE(0) : 0;
  if ((flags & reply.textAttached) === 0 || body.length < 4 + HEADER_BYTES) return { seq, errno, text: '' };
  const requestBytes = (flags & reply.capped) !== 0 ? HEADER_BYTES : align4(body.readUInt32LE(4));
  return {
    seq,
    errno,
    text: textOf(decodeAttributes(body.subarray(4 + requestBytes)).get(ERROR_TEXT_ATTRIBUTE)),
  };
}

export interface Answer {
  readonly messages: readonly Message[];
  readonly acknowledgements: readonly Acknowledgement[];
  /** What a dump describes changed meanwhile: it must be asked for again (Documentation/userspace-api/netlink/intro.rst). */
  readonly interrupted: boolean;
}

export function decodeAnswer(buffer: Buffer): Answer {
  const messages: Message[] = [];
  const acknowledgements: Acknowledgement[] = [];
  let interrupted = false;
  for (let at = 0; at + HEADER_BYTES <= buffer.length;) {
    const length = buffer.readUInt32LE(at);
    if (length < HEADER_BYTES || at + length > buffer.length) break;
    const message: Message = {
      type: buffer.readUInt16LE(at + 4),
      flags: buffer.readUInt16LE(at + 6),
      seq: buffer.readUInt32LE(at + 8),
      body: buffer.subarray(at + HEADER_BYTES, at + length),
    };
    interrupted ||= message.type !== ERROR && (message.flags & reply.dumpInterrupted) !== 0;
    if (message.type === ERROR || message.type === DONE)
      acknowledgements.push(decodeAcknowledgement(message));
    else messages.push(message);
    at += align4(length);
  }
  return { messages, acknowledgements, interrupted };
}
