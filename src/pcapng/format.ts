/** Numbers of draft-ietf-opsawg-pcapng, sections 3 and 4. */
export const blockType = {
  interfaceDescription: 1,
  obsoletePacket: 2,
  simplePacket: 3,
  enhancedPacket: 6,
  sectionHeader: 0x0a0d0d0a,
} as const;

export const byteOrderMagic = 0x1a2b3c4d;

/** Option codes; those below 2 are the same in every block. */
export const optionCode = {
  end: 0,
  comment: 1,
  sectionUserApplication: 4,
  interfaceName: 2,
  interfaceDescription: 3,
  interfaceTimestampResolution: 9,
  interfaceTimestampOffset: 14,
  packetFlags: 2,
} as const;

/** LINKTYPE_ETHERNET. */
export const linkTypeEthernet = 1;

/** epb_flags, bits 0 and 1 (section 4.3.1). */
export const packetFlags = { inbound: 1, outbound: 2 } as const;

export interface PcapngInterface {
  /** The device's name; "" if the file does not say. */
  readonly name: string;
  readonly description?: string | undefined;
  /** LINKTYPE_ETHERNET if left out. */
  readonly linkType?: number | undefined;
  /** The longest packet captured; 0, or left out, for no limit. */
  readonly snapLengthBytes?: number | undefined;
}

export interface PcapngPacket {
  /** Index into the file's interfaces. */
  readonly interfaceIndex: number;
  /** Since 1970-01-01 UTC. */
  readonly timestampNs: bigint;
  readonly data: Uint8Array;
  /** The packet's length on the wire; that of `data` if left out. */
  readonly originalLengthBytes?: number | undefined;
  readonly comments?: readonly string[] | undefined;
  /** epb_flags; see `packetFlags`. */
  readonly flags?: number | undefined;
}

export interface PcapngSection {
  /** The program that wrote the file. */
  readonly userApplication?: string | undefined;
  readonly comments?: readonly string[] | undefined;
}

/** Bytes that bring a length to a multiple of four, as all blocks and options are. */
export function paddingBytes(lengthBytes: number): number {
  return -lengthBytes & 3;
}
