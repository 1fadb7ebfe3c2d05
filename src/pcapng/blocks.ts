import { PcapngError } from './errors.ts';
import { blockType, byteOrderMagic, linkTypeEthernet, optionCode, paddingBytes } from './format.ts';
import type { PcapngInterface, PcapngPacket, PcapngSection } from './format.ts';

interface Option {
  readonly code: number;
  readonly value: Uint8Array;
}

const MAX_UINT16 = 0xffff;
const MAX_UINT32 = 0xffff_ffff;
const MAX_TIMESTAMP_NS = 2n ** 64n - 1n;
/** if_tsresol: a negative power of ten, so nanoseconds. */
const NANOSECONDS = 9;

/**
 * A section header of unknown section length, little-endian (draft-ietf-opsawg-pcapng, section 4.1).
 * @throws PcapngError 'invalid-argument' if a text is longer than 65535 bytes.
 */
export function sectionHeaderBlock(section: PcapngSection = {}): Buffer {
  const body = Buffer.alloc(16);
  body.writeUInt32LE(byteOrderMagic, 0);
  body.writeUInt16LE(1, 4);
  body.writeBigInt64LE(-1n, 8);
  const options = [
    ...textOptions(optionCode.comment, section.comments ?? []),
    ...textOptions(optionCode.sectionUserApplication, present(section.userApplication)),
  ];
  return block(blockType.sectionHeader, [body], options);
}

/**
 * An interface whose packets carry nanoseconds (section 4.2).
 * @throws PcapngError 'invalid-argument' if a text or a number does not fit its field.
 */
export function interfaceDescriptionBlock(device: PcapngInterface): Buffer {
  const body = Buffer.alloc(8);
  const { linkType = linkTypeEthernet, snapLengthBytes = 0 } = device;
  body.writeUInt16LE(checked(linkType, MAX_UINT16, 'a link type'), 0);
  body.writeUInt32LE(checked(snapLengthBytes, MAX_UINT32, 'a snap length'), 4);
  const options = [
    ...textOptions(optionCode.interfaceName, present(device.name === '' ? undefined : device.name)),
    ...textOptions(optionCode.interfaceDescription, present(device.description)),
    { code: optionCode.interfaceTimestampResolution, value: Uint8Array.of(NANOSECONDS) },
  ];
  return block(blockType.interfaceDescription, [body], options);
}

/**
 * One packet (section 4.3). Whether its interface was described before is up to the caller.
 * @throws PcapngError 'invalid-argument' if something does not fit its field.
 */
export function enhancedPacketBlock(packet: PcapngPacket): Buffer {
  const { data, timestampNs, originalLengthBytes = data.length, flags, comments = [] } = packet;
  if (timestampNs < 0n || timestampNs > MAX_TIMESTAMP_NS) {
    throw new PcapngError('invalid-argument', `a time must fit 64 bits: ${timestampNs} ns`);
  }
  const head = Buffer.alloc(20);
  head.writeUInt32LE(checked(packet.interfaceIndex, MAX_UINT32, 'an interface index'), 0);
  head.writeUInt32LE(Number(timestampNs >> 32n), 4);
  head.writeUInt32LE(Number(timestampNs & 0xffff_ffffn), 8);
  head.writeUInt32LE(checked(data.length, MAX_UINT32, 'a captured length'), 12);
  head.writeUInt32LE(checked(originalLengthBytes, MAX_UINT32, 'an original length'), 16);
  const options: Option[] = textOptions(optionCode.comment, comments);
  if (flags !== undefined) {
    const value = Buffer.alloc(4);
    value.writeUInt32LE(checked(flags, MAX_UINT32, 'flags'));
    options.push({ code: optionCode.packetFlags, value });
  }
  return block(blockType.enhancedPacket, [head, data, Buffer.alloc(paddingBytes(data.length))], options);
}

function block(type: number, body: readonly Uint8Array[], options: readonly Option[]): Buffer {
  const head = Buffer.alloc(8);
  const tail = Buffer.alloc(4);
  const parts = [head, ...body, ...options.flatMap(encodeOption), ...encodeEnd(options), tail];
  const totalBytes = parts.reduce((sum, part) => sum + part.length, 0);
  head.writeUInt32LE(type, 0);
  head.writeUInt32LE(checked(totalBytes, MAX_UINT32, "a block's length"), 4);
  tail.writeUInt32LE(totalBytes, 0);
  return Buffer.concat(parts, totalBytes);
}

function encodeOption({ code, value }: Option): Uint8Array[] {
  const head = Buffer.alloc(4);
  head.writeUInt16LE(code, 0);
  head.writeUInt16LE(checked(value.length, MAX_UINT16, "an option's length"), 2);
  return [head, value, Buffer.alloc(paddingBytes(value.length))];
}

function encodeEnd(options: readonly Option[]): Uint8Array[] {
  return options.length === 0 ? [] : [Buffer.alloc(4)];
}

function textOptions(code: number, texts: readonly string[]): Option[] {
  return texts.map((text) => ({ code, value: Buffer.from(text) }));
}

function present(text: string | undefined): string[] {
  return text === undefined ? [] : [text];
}

function checked(value: number, max: number, what: string): number {
  if (Number.isInteger(value) && value >= 0 && value <= max) return value;
  throw new PcapngError('invalid-argument', `${what} must be an integer from 0 to ${max}, not ${value}`);
}
