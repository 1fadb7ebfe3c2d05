import { FieldReader, malformed, readBlocks, readOptions, requireBytes } from './block-reader.ts';
import type { Block } from './block-reader.ts';
import { PcapngError } from './errors.ts';
import { blockType, optionCode } from './format.ts';
import { TickClock } from './tick-clock.ts';

export interface ReadInterface {
  /** "" if the file does not say. */
  readonly name: string;
  readonly description: string | undefined;
  readonly linkType: number;
  /** 0 for no limit. */
  readonly snapLengthBytes: number;
}

export interface ReadPacket {
  /** Index into `interfaces`, also where the file has several sections. */
  readonly interfaceIndex: number;
  /** Since 1970-01-01 UTC; rounded down where the file is finer than nanoseconds. */
  readonly timestampNs: bigint;
  /** A view into the file's bytes. */
  readonly data: Uint8Array;
  readonly originalLengthBytes: number;
  readonly comments: readonly string[];
  readonly flags: number | undefined;
}

export interface PcapngFile {
  /** Of the first section. */
  readonly userApplication: string | undefined;
  /** Of all sections. */
  readonly comments: readonly string[];
  readonly interfaces: readonly ReadInterface[];
  readonly packets: readonly ReadPacket[];
}

interface Reading {
  userApplication: string | undefined;
  readonly comments: string[];
  readonly interfaces: ReadInterface[];
  readonly clocks: TickClock[];
  readonly packets: ReadPacket[];
  /** Where the current section's interfaces begin: packets number them from 0 in each section. */
  firstInterface: number;
}

const text = new TextDecoder();

/**
 * Reads a whole file of either byte order and any number of sections. Blocks of unknown types are skipped, as the
 * format wants it.
 * @throws PcapngError 'truncated', 'malformed', or 'unsupported' (another major version; Simple Packet Blocks, which
 * have no time, and the obsolete Packet Block: skipping those would lose packets in silence).
 */
export function readPcapng(file: Uint8Array): PcapngFile {
  const reading: Reading = {
    userApplication: undefined,
    comments: [],
    interfaces: [],
    clocks: [],
    packets: [],
    firstInterface: 0,
  };
  if (file.length === 0) throw new PcapngError('truncated', 'the file is empty');
  for (const block of readBlocks(file)) readBlock(reading, block);
  const { userApplication, comments, interfaces, packets } = reading;
  return { userApplication, comments, interfaces, packets };
}

function readBlock(reading: Reading, block: Block): void {
  switch (block.type) {
    case blockType.sectionHeader:
      readSectionHeader(reading, block);
      return;
    case blockType.interfaceDescription:
      readInterface(reading, block);
      return;
    case blockType.enhancedPacket:
      readPacket(reading, block);
      return;
    case blockType.simplePacket:
    case blockType.obsoletePacket:
      throw new PcapngError('unsupported', `a packet block of type ${block.type} (at byte ${block.offset})`);
    default:
      return;
  }
}

function readSectionHeader(reading: Reading, block: Block): void {
  requireBytes(block, 16);
  const major = block.fields.uint16(4);
  if (major !== 1) throw new PcapngError('unsupported', `pcapng of major version ${major}`);
  reading.firstInterface = reading.interfaces.length;
  for (const { code, value } of readOptions(block, 16)) {
    if (code === optionCode.comment) reading.comments.push(text.decode(value));
    if (code === optionCode.sectionUserApplication) reading.userApplication ??= text.decode(value);
  }
}

function readInterface(reading: Reading, block: Block): void {
  requireBytes(block, 8);
  const options = new Map(readOptions(block, 8).map(({ code, value }) => [code, value]));
  const name = options.get(optionCode.interfaceName);
  const description = options.get(optionCode.interfaceDescription);
  const resolution = options.get(optionCode.interfaceTimestampResolution);
  const offset = options.get(optionCode.interfaceTimestampOffset);
  if (resolution?.length === 0 || (offset !== undefined && offset.length !== 8)) {
    throw malformed(block.offset, "an interface's time options have the wrong length");
  }
  const { littleEndian } = block.fields;
  const offsetSeconds = offset === undefined ? 0n : new FieldReader(offset, littleEndian).int64(0);
  reading.clocks.push(new TickClock(resolution?.[0], offsetSeconds));
  reading.interfaces.push({
    name: name === undefined ? '' : text.decode(name),
    description: description === undefined ? undefined : text.decode(description),
    linkType: block.fields.uint16(0),
    snapLengthBytes: block.fields.uint32(4),
  });
}

function readPacket(reading: Reading, block: Block): void {
  requireBytes(block, 20);
  const { fields } = block;
  const interfaceIndex = reading.firstInterface + fields.uint32(0);
  const clock = reading.clocks[interfaceIndex];
  if (clock === undefined) throw malformed(block.offset, 'a packet of an interface that is not described');
  const capturedBytes = fields.uint32(12);
  requireBytes(block, 20 + capturedBytes);
  const options = readOptions(block, 20 + Math.ceil(capturedBytes / 4) * 4);
  const flags = options.find(({ code }) => code === optionCode.packetFlags)?.value;
  if (flags !== undefined && flags.length !== 4) throw malformed(block.offset, 'flags of the wrong length');
  const ticks = (BigInt(fields.uint32(4)) << 32n) | BigInt(fields.uint32(8));
  reading.packets.push({
    interfaceIndex,
    timestampNs: clock.toNs(ticks),
    data: block.body.subarray(20, 20 + capturedBytes),
    originalLengthBytes: fields.uint32(16),
    comments: options
      .filter(({ code }) => code === optionCode.comment)
      .map(({ value }) => text.decode(value)),
    flags: flags === undefined ? undefined : new FieldReader(flags, fields.littleEndian).uint32(0),
  });
}
