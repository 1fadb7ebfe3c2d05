export { enhancedPacketBlock, interfaceDescriptionBlock, sectionHeaderBlock } from './blocks.ts';
export { PcapngError } from './errors.ts';
export type { PcapngErrorCode } from './errors.ts';
export { linkTypeEthernet, packetFlags } from './format.ts';
export type { PcapngInterface, PcapngPacket, PcapngSection } from './format.ts';
export { readPcapng } from './read.ts';
export type { PcapngFile, ReadInterface, ReadPacket } from './read.ts';
export { pcapngBlocks, writePcapng } from './write.ts';
export type { PcapngContents } from './write.ts';
