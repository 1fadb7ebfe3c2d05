import { enhancedPacketBlock, interfaceDescriptionBlock, sectionHeaderBlock } from './blocks.ts';
import { PcapngError } from './errors.ts';
import type { PcapngInterface, PcapngPacket, PcapngSection } from './format.ts';

export interface PcapngContents {
  readonly section?: PcapngSection | undefined;
  readonly interfaces: readonly PcapngInterface[];
  readonly packets: Iterable<PcapngPacket>;
}

/**
 * A file as its blocks, one after another, so that it need not fit into memory.
 * @throws PcapngError 'invalid-argument' at the packet that does not fit, or whose interface is missing.
 */
export function* pcapngBlocks({ section, interfaces, packets }: PcapngContents): Generator<Buffer> {
  yield sectionHeaderBlock(section);
  for (const device of interfaces) yield interfaceDescriptionBlock(device);
  for (const packet of packets) {
    if (interfaces[packet.interfaceIndex] === undefined) {
      throw new PcapngError('invalid-argument', `there is no interface ${packet.interfaceIndex}`);
    }
    yield enhancedPacketBlock(packet);
  }
}

/** The same in one piece. @throws PcapngError 'invalid-argument'. */
export function writePcapng(contents: PcapngContents): Buffer {
  return Buffer.concat([...pcapngBlocks(contents)]);
}
