import { PcapngError } from './errors.ts';
import { blockType, byteOrderMagic, optionCode, paddingBytes } from './format.ts';

/** Reads integers of a section's byte order, each within its bounds. */
export class FieldReader {
  readonly #view: DataView;
  readonly littleEndian: boolean;

  constructor(bytes: Uint8Array, littleEndian: boolean) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.littleEndian = littleEndian;
  }

  uint16(offset: number): number {
    return this.#view.getUint16(offset, this.littleEndian);
  }

  uint32(offset: number): number {
    return this.#view.getUint32(offset, this.littleEndian);
  }

  int64(offset: number): bigint {
    return this.#view.getBigInt64(offset, this.littleEndian);
  }
}

export interface Block {
  readonly type: number;
  /** Where in the file the block begins, for error messages. */
  readonly offset: number;
  /** Between the two lengths. */
  readonly body: Uint8Array;
  readonly fields: FieldReader;
}

/**
 * The file's blocks, as views into it (draft-ietf-opsawg-pcapng, section 3.1).
 * @throws PcapngError 'truncated' or 'malformed' at the first block that is not whole or contradicts itself.
 */
export function* readBlocks(file: Uint8Array): Generator<Block> {
  let littleEndian: boolean | undefined;
  for (let offset = 0; offset < file.length;) {
    const rest = file.subarray(offset);
    if (rest.length < 12) throw truncated(offset);
    // The type of a section header reads the same both ways; what follows tells the section's byte order.
    const isSectionHeader = new FieldReader(rest, true).uint32(0) === blockType.sectionHeader;
    if (isSectionHeader) littleEndian = byteOrderOf(rest, offset);
    if (littleEndian === undefined) throw malformed(offset, 'the file does not begin with a section header');
    const fields = new FieldReader(rest, littleEndian);
    const totalBytes = fields.uint32(4);
    if (totalBytes < 12 || totalBytes % 4 !== 0) throw malformed(offset, `a block of ${totalBytes} bytes`);
    if (totalBytes > rest.length) throw truncated(offset);
    if (fields.uint32(totalBytes - 4) !== totalBytes) throw malformed(offset, "a block's two lengths differ");
    const body = rest.subarray(8, totalBytes - 4);
    yield { type: fields.uint32(0), offset, body, fields: new FieldReader(body, littleEndian) };
    offset += totalBytes;
  }
}

function byteOrderOf(header: Uint8Array, offset: number): boolean {
  for (const littleEndian of [true, false]) {
    if (new FieldReader(header, littleEndian).uint32(8) === byteOrderMagic) return littleEndian;
  }
  throw malformed(offset, 'a section header without the byte-order magic');
}

/** @throws PcapngError 'malformed' if the block is too short for its fixed fields. */
export function requireBytes(block: Block, neededBytes: number): void {
  if (block.body.length < neededBytes) throw malformed(block.offset, 'a block is too short for its type');
}

/**
 * The options from `start` on, in their order (section 3.5).
 * @throws PcapngError 'malformed' if one reaches beyond the block.
 */
export function readOptions(block: Block, start: number): { code: number; value: Uint8Array }[] {
  const options = [];
  for (let at = start; at < block.body.length;) {
    if (at + 4 > block.body.length) throw malformed(block.offset, 'an option is cut off');
    const [code, lengthBytes] = [block.fields.uint16(at), block.fields.uint16(at + 2)];
    if (code === optionCode.end) break;
    if (at + 4 + lengthBytes > block.body.length) throw malformed(block.offset, 'an option is cut off');
    options.push({ code, value: block.body.subarray(at + 4, at + 4 + lengthBytes) });
    at += 4 + lengthBytes + paddingBytes(lengthBytes);
  }
  return options;
}

export function malformed(offset: number, what: string): PcapngError {
  return new PcapngError('malformed', `${what} (at byte ${offset})`);
}

function truncated(offset: number): PcapngError {
  return new PcapngError('truncated', `the file ends within the block that begins at byte ${offset}`);
}
