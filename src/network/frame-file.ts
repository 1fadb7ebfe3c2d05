import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { asStaghornError, StaghornError } from '../errors/index.ts';

/**
 * The frames in flight of a snapshot, as a file. All integers are little-endian:
 *
 *   magic "SGFRAMES", u32 version, u32 ports, u32 frames
 *   each port:  u16 length, its name in UTF-8
 *   each frame: u32 port, u32 flags (0 in this version), i64 offset in ns, u32 GSO size, u32 length, its bytes
 *   SHA-256 of everything before
 *
 * Frames of a port are in order. An offset counts from the instant at which the port's VM was stopped; it is
 * negative for a frame that the VM had not read by then.
 */
export interface FrameInFlight {
  readonly port: string;
  readonly offsetNs: bigint;
  /** Bytes a segment if the frame is still to be segmented; 0 otherwise. */
  readonly gsoSize: number;
  readonly frame: Buffer;
}

export interface FrameFile {
  readonly ports: readonly string[];
  readonly frames: readonly FrameInFlight[];
}

const MAGIC = Buffer.from('SGFRAMES', 'latin1');
const VERSION = 1;
const HEADER_BYTES = 20;
const RECORD_BYTES = 24;
const DIGEST_BYTES = 32;
export const MAX_FRAME_BYTES = 70_000;
const MAX_PORT_NAME_BYTES = 4096;

function encodePort(name: string): Buffer {
  const text = Buffer.from(name, 'utf8');
  if (text.length > MAX_PORT_NAME_BYTES) throw new RangeError(`the name of a port has ${text.length} bytes`);
  const length = Buffer.alloc(2);
  length.writeUInt16LE(text.length);
  return Buffer.concat([length, text]);
}

function encodeRecord({ offsetNs, gsoSize, frame }: FrameInFlight, port: number): Buffer {
  if (frame.length > MAX_FRAME_BYTES) throw new RangeError(`a frame has ${frame.length} bytes`);
  const record = Buffer.alloc(RECORD_BYTES);
  record.writeUInt32LE(port, 0);
  record.writeBigInt64LE(offsetNs, 8);
  record.writeUInt32LE(gsoSize, 16);
  record.writeUInt32LE(frame.length, 20);
  return record;
}

/** The file's bytes. Throws a RangeError for a frame of a port that is not among `ports`. */
export function encodeFrameFile({ ports, frames }: FrameFile): Buffer {
  const places = new Map(ports.map((name, place) => [name, place]));
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt32LE(VERSION, 8);
  header.writeUInt32LE(ports.length, 12);
  header.writeUInt32LE(frames.length, 16);
  const parts = [header, ...ports.map(encodePort)];
  for (const entry of frames) {
    const place = places.get(entry.port);
    if (place === undefined) throw new RangeError(`a frame is for port ${entry.port}, which is not among the file's`);
    parts.push(encodeRecord(entry, place), entry.frame);
  }
  const digest = createHash('sha256');
  for (const part of parts) digest.update(part);
  return Buffer.concat([...parts, digest.digest()]);
}

const damaged = (what: string) => new StaghornError('snapshot-damaged', `the file of frames in flight is damaged: ${what}`);

/** Reads forward, and refuses to read past the end. */
class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  take(length: number, what: string): Buffer {
    if (length > this.#bytes.length - this.#at) throw damaged(`it ends within ${what}`);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }
}

function decodeRecord(cursor: Cursor, ports: readonly string[], place: number): FrameInFlight {
  const record = cursor.take(RECORD_BYTES, `frame ${place}`);
  const port = ports[record.readUInt32LE(0)];
  const length = record.readUInt32LE(20);
  if (port === undefined) throw damaged(`frame ${place} names port ${record.readUInt32LE(0)} of ${ports.length}`);
  if (record.readUInt32LE(4) !== 0) throw damaged(`frame ${place} has unknown flags`);
  if (length > MAX_FRAME_BYTES) throw damaged(`frame ${place} claims ${length} bytes`);
  return {
    port,
    offsetNs: record.readBigInt64LE(8),
    gsoSize: record.readUInt32LE(16),
    frame: Buffer.from(cursor.take(length, `frame ${place}`)),
  };
}

/** Throws StaghornError "snapshot-damaged" for bytes that {@link encodeFrameFile} did not make. */
export function decodeFrameFile(bytes: Buffer): FrameFile {
  if (bytes.length < HEADER_BYTES + DIGEST_BYTES) throw damaged(`it has ${bytes.length} bytes`);
  if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) throw damaged('it is of another kind');
  const version = bytes.readUInt32LE(8);
  if (version !== VERSION) throw damaged(`it has version ${version}, and this release reads ${VERSION}`);
  const body = bytes.subarray(0, -DIGEST_BYTES);
  const digest = createHash('sha256').update(body).digest();
  if (!digest.equals(bytes.subarray(-DIGEST_BYTES))) throw damaged('its checksum does not fit');
  const cursor = new Cursor(body);
  const header = cursor.take(HEADER_BYTES, 'the header');
  const ports: string[] = [];
  for (let place = 0; place < header.readUInt32LE(12); place++) {
    const length = cursor.take(2, `port ${place}`).readUInt16LE(0);
    ports.push(cursor.take(length, `port ${place}`).toString('utf8'));
  }
  const frames: FrameInFlight[] = [];
  for (let place = 0; place < header.readUInt32LE(16); place++) frames.push(decodeRecord(cursor, ports, place));
  if (cursor.left > 0) throw damaged(`${cursor.left} bytes are left over`);
  return { ports, frames };
}

export interface WrittenFile {
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** Writes a new file and has it on the disk when it returns; `sha256` is that of the whole file. */
export async function writeFrameFile(path: string, file: FrameFile): Promise<WrittenFile> {
  const bytes = encodeFrameFile(file);
  try {
    const handle = await open(path, 'wx');
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw asStaghornError(error, 'internal', `${path}: `);
  }
  return { sizeBytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
}

/** Throws StaghornError "snapshot-damaged" if the file is missing, longer than `maxBytes`, or damaged. */
export async function readFrameFile(path: string, { maxBytes = 2 ** 31 }: { maxBytes?: number } = {}): Promise<FrameFile> {
  let bytes: Buffer;
  try {
    const handle = await open(path, 'r');
    try {
      const { size } = await handle.stat();
      if (size > maxBytes) throw damaged(`it has ${size} bytes, and ${maxBytes} are allowed`);
      bytes = await handle.readFile();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw asStaghornError(error, 'snapshot-damaged', `${path}: `);
  }
  return decodeFrameFile(bytes);
}
