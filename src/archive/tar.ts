import { StaghornError } from '../errors/index.ts';

/**
 * The part of the tar format (POSIX.1-1988 ustar, pax(1)) that an archive of ours is made of: regular files and
 * nothing else. Links, directories, devices, extended headers and sparse files are refused, so nothing in an archive
 * can lead out of the place where it is unpacked. A size of 8 GiB and more is binary (GNU tar, star).
 */
export const blockBytes = 512;
const nameBytes = 100;
const prefixBytes = 155;
const octalSizeMax = 8 ** 11 - 1;

export interface TarFile {
  readonly name: string;
  readonly bytes: number;
}

/** The header of a file. @throws StaghornError 'invalid-input' if its name is too long */
export function tarHeader({ name, bytes }: TarFile): Buffer {
  const header = Buffer.alloc(blockBytes);
  const { prefix, rest } = splitName(name);
  header.write(rest, 0);
  header.write('0000600\0', 100);
  header.write('0000000\0', 108);
  header.write('0000000\0', 116);
  writeSize(header, bytes);
  header.write('00000000000\0', 136);
  header.write('0', 156);
  header.write('ustar\x0000', 257);
  header.write(prefix, 345);
  header.write(`${checksumOf(header).toString(8).padStart(6, '0')}\0 `, 148);
  return header;
}

/** What fills a file up to whole blocks. */
export function tarPadding(bytes: number): Buffer {
  return Buffer.alloc((blockBytes - (bytes % blockBytes)) % blockBytes);
}

/** Two empty blocks. */
export const tarEnd = Buffer.alloc(2 * blockBytes);

function splitName(name: string): { prefix: string; rest: string } {
  if (Buffer.byteLength(name) <= nameBytes) return { prefix: '', rest: name };
  for (let at = name.indexOf('/'); at >= 0; at = name.indexOf('/', at + 1)) {
    const [prefix, rest] = [name.slice(0, at), name.slice(at + 1)];
    if (Buffer.byteLength(prefix) <= prefixBytes && Buffer.byteLength(rest) <= nameBytes)
      return { prefix, rest };
  }
  throw new StaghornError('invalid-input', `${name} is too long a name for an archive`);
}

function writeSize(header: Buffer, bytes: number): void {
  if (bytes <= octalSizeMax) {
    header.write(`${bytes.toString(8).padStart(11, '0')}\0`, 124);
    return;
  }
  header[124] = 0x80;
  header.writeBigUInt64BE(BigInt(bytes), 128);
}

function checksumOf(header: Buffer): number {
  let sum = 8 * 0x20; // the checksum itself counts as spaces
  header.forEach((byte, at) => (sum += at >= 148 && at < 156 ? 0 : byte));
  return sum;
}

export type TarEvent =
  | { readonly kind: 'file'; readonly file: TarFile }
  | { readonly kind: 'data'; readonly data: Buffer }
  | { readonly kind: 'fileEnd' };

/** Takes a stream apart; each chunk gives what has become known with it. Once it has thrown it must not be used. */
export class TarDecoder {
  readonly #events: TarEvent[] = [];
  #header = Buffer.alloc(0);
  #dataLeft = 0;
  #paddingLeft = 0;
  #emptyBlocks = 0;

  /** @throws StaghornError 'snapshot-damaged' if it is not such an archive */
  push(chunk: Buffer): TarEvent[] {
    for (let rest = chunk; rest.length > 0;) rest = this.#take(rest);
    return this.#events.splice(0);
  }

  /** @throws StaghornError 'snapshot-damaged' if the archive is not complete */
  end(): void {
    if (this.#emptyBlocks < 2) throw damaged('it ends too early');
  }

  #take(chunk: Buffer): Buffer {
    if (this.#dataLeft > 0) {
      const data = chunk.subarray(0, this.#dataLeft);
      this.#dataLeft -= data.length;
      this.#events.push({ kind: 'data', data });
      if (this.#dataLeft === 0) this.#events.push({ kind: 'fileEnd' });
      return chunk.subarray(data.length);
    }
    if (this.#paddingLeft > 0) {
      const padding = chunk.subarray(0, this.#paddingLeft);
      this.#paddingLeft -= padding.length;
      return chunk.subarray(padding.length);
    }
    const missing = chunk.subarray(0, blockBytes - this.#header.length);
    this.#header = Buffer.concat([this.#header, missing]);
    if (this.#header.length === blockBytes) {
      this.#begin(this.#header);
      this.#header = Buffer.alloc(0);
    }
    return chunk.subarray(missing.length);
  }

  #begin(header: Buffer): void {
    if (header.every((byte) => byte === 0)) {
      this.#emptyBlocks += 1;
      return;
    }
    if (this.#emptyBlocks > 0) throw damaged('something follows its end');
    const file = parseHeader(header);
    this.#events.push({ kind: 'file', file });
    this.#dataLeft = file.bytes;
    this.#paddingLeft = tarPadding(file.bytes).length;
    if (file.bytes === 0) this.#events.push({ kind: 'fileEnd' });
  }
}

function parseHeader(header: Buffer): TarFile {
  if (header.toString('latin1', 257, 263) !== 'ustar\0') throw damaged('a header is not of the format ustar');
  const checksum = /^([0-7]{6})\0 $/.exec(header.toString('latin1', 148, 156))?.[1];
  if (checksum === undefined || parseInt(checksum, 8) !== checksumOf(header))
    throw damaged('a header does not have its checksum');
  const [name, prefix] = [textAt(header, 0, nameBytes), textAt(header, 345, prefixBytes)];
  const path = prefix === '' ? name : `${prefix}/${name}`;
  const type = String.fromCharCode(header[156]!);
  if (type !== '0')
    throw damaged(`${JSON.stringify(path)} is no regular file (type ${JSON.stringify(type)})`);
  return { name: path, bytes: parseSize(header.subarray(124, 136)) };
}

function parseSize(field: Buffer): number {
  const text = /^([0-7]{1,11})[ \0]*$/.exec(field.toString('latin1'))?.[1];
  if (text !== undefined) return parseInt(text, 8);
  const size = field[0] === 0x80 ? field.readBigUInt64BE(4) : undefined;
  if (size === undefined || field.readUInt32BE(0) !== 0x80000000 || size > BigInt(Number.MAX_SAFE_INTEGER))
    throw damaged('a header has no size');
  return Number(size);
}

function textAt(header: Buffer, at: number, length: number): string {
  const field = header.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString('utf8', 0, end < 0 ? length : end);
}

const damaged = (what: string) =>
  new StaghornError('snapshot-damaged', `this is not an archive that Staghorn reads: ${what}`);
