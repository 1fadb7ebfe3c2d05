import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { enhancedPacketBlock, interfaceDescriptionBlock, sectionHeaderBlock } from './blocks.ts';
import { PcapngError } from './errors.ts';
import { packetFlags } from './format.ts';
import { readPcapng } from './read.ts';
import type { PcapngFile } from './read.ts';
import { pcapngBlocks, writePcapng } from './write.ts';

const text = fc.string({ unit: 'grapheme', maxLength: 20 });
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const device = fc.record({
  name: text,
  description: fc.option(text, { nil: undefined }),
  linkType: fc.integer({ min: 0, max: 0xffff }),
  snapLengthBytes: uint32,
});

/** A file with at least one interface, and packets that belong to its interfaces. */
const contents: fc.Arbitrary<PcapngFile> = fc
  .array(device, { minLength: 1, maxLength: 3 })
  .chain((interfaces) =>
    fc.record({
      userApplication: fc.option(text, { nil: undefined }),
      comments: fc.array(text, { maxLength: 2 }),
      interfaces: fc.constant(interfaces),
      packets: fc.array(
        fc.record({
          interfaceIndex: fc.nat(interfaces.length - 1),
          timestampNs: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
          data: fc.uint8Array({ maxLength: 50 }),
          originalLengthBytes: uint32,
          comments: fc.array(text, { maxLength: 2 }),
          flags: fc.option(uint32, { nil: undefined }),
        }),
        { maxLength: 5 },
      ),
    }),
  );

function encode(file: PcapngFile): Buffer {
  const { userApplication, comments, interfaces, packets } = file;
  return writePcapng({ section: { userApplication, comments }, interfaces, packets });
}

/** `view`s are compared by their bytes, whatever their class. */
function plain(file: PcapngFile): PcapngFile {
  return {
    ...file,
    packets: file.packets.map((packet) => ({ ...packet, data: Uint8Array.from(packet.data) })),
  };
}

const withCode = (code: string): Error => expect.objectContaining({ code }) as Error;
const oneInterface = [{ name: 'tap0' }];
const onePacket = { interfaceIndex: 0, timestampNs: 1n, data: Uint8Array.of(1, 2, 3) };

describe('pcapng', () => {
  it('reads back what it wrote', () => {
    fc.assert(
      fc.property(contents, (file) => {
        expect(plain(readPcapng(encode(file)))).toEqual(file);
      }),
    );
  });

  it('reads several sections as one list, each with its own interfaces', () => {
    fc.assert(
      fc.property(contents, contents, (first, second) => {
        const both = readPcapng(Buffer.concat([encode(first), encode(second)]));
        const moved = second.packets.map((packet) => ({
          ...packet,
          interfaceIndex: packet.interfaceIndex + first.interfaces.length,
        }));
        expect(plain(both)).toEqual({
          userApplication: first.userApplication ?? second.userApplication,
          comments: [...first.comments, ...second.comments],
          interfaces: [...first.interfaces, ...second.interfaces],
          packets: [...first.packets, ...moved],
        });
      }),
    );
  });

  it('tells every truncation that does not fall between two blocks', () => {
    fc.assert(
      fc.property(contents, fc.nat(), (file, at) => {
        const bytes = encode(file);
        const { userApplication, comments, interfaces, packets } = file;
        const blocks = [...pcapngBlocks({ section: { userApplication, comments }, interfaces, packets })];
        const ends = blocks.map((_, index) => Buffer.concat(blocks.slice(0, index + 1)).length);
        const cut = bytes.subarray(0, at % bytes.length);
        if (ends.includes(cut.length)) expect(() => readPcapng(cut)).not.toThrow();
        else expect(() => readPcapng(cut)).toThrow(withCode('truncated'));
      }),
    );
  });

  it('answers damaged bytes with PcapngError and nothing else', () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 6 });
    fc.assert(
      fc.property(contents, damage, (file, places) => {
        const bytes = encode(file);
        for (const [at, value] of places) bytes[at % bytes.length] = value;
        expect(errorOf(() => readPcapng(bytes))).toSatisfy(isPcapngErrorOrNone);
      }),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(errorOf(() => readPcapng(bytes))).toBeInstanceOf(PcapngError);
      }),
    );
  });

  it('lays the blocks out as the draft draws them', () => {
    expect(sectionHeaderBlock().toString('hex')).toBe(
      '0a0d0d0a' + '1c000000' + '4d3c2b1a' + '01000000' + 'ffffffffffffffff' + '1c000000',
    );
    expect(interfaceDescriptionBlock({ name: 'tap0' }).toString('hex')).toBe(
      '01000000' +
        '28000000' +
        '01000000' +
        '00000000' + // Ethernet, no limit
        '02000400' +
        '74617030' +
        '09000100' +
        '09000000' +
        '00000000' +
        '28000000',
    );
    const packet = {
      ...onePacket,
      timestampNs: 0x1_0000_0002n,
      comments: ['hé'],
      flags: packetFlags.outbound,
    };
    expect(enhancedPacketBlock(packet).toString('hex')).toBe(
      '06000000' +
        '38000000' +
        '00000000' +
        '01000000' +
        '02000000' +
        '03000000' +
        '03000000' +
        '01020300' +
        '01000300' +
        '68c3a900' +
        '02000400' +
        '02000000' +
        '00000000' +
        '38000000',
    );
  });

  it('reads big-endian files, other resolutions, an offset, and skips blocks that it does not know', () => {
    const file = Buffer.from(
      '0a0d0d0a' +
        '0000001c' +
        '1a2b3c4d' +
        '00010000' +
        'ffffffffffffffff' +
        '0000001c' +
        '00000bad' +
        '00000010' +
        'deadbeef' +
        '00000010' + // not assigned
        '00000001' +
        '00000014' +
        '00010000' +
        '00000000' +
        '00000014' + // microseconds by default
        '00000001' +
        '0000002c' +
        '00010000' +
        '00000000' +
        '00090001' +
        '81000000' +
        '000e0008' +
        '0000000000000064' +
        '00000000' +
        '0000002c' + // halves, from 100 s
        '00000006' +
        '00000024' +
        '00000000' +
        '00000000' +
        '00000007' +
        '00000001' +
        '00000040' +
        'aa000000' +
        '00000024' +
        '00000006' +
        '0000002c' +
        '00000001' +
        '00000000' +
        '00000003' +
        '00000000' +
        '00000000' +
        '00020004' +
        '00000001' +
        '00000000' +
        '0000002c',
      'hex',
    );
    const { packets } = readPcapng(file);
    expect(packets).toMatchObject([
      { interfaceIndex: 0, timestampNs: 7_000n, originalLengthBytes: 64, flags: undefined },
      {
        interfaceIndex: 1,
        timestampNs: 101_500_000_000n,
        originalLengthBytes: 0,
        flags: packetFlags.inbound,
      },
    ]);
    expect([...(packets[0]?.data ?? [])]).toEqual([0xaa]);
  });

  it.each<[string, string, Buffer]>([
    ['malformed', 'a file without a section header', interfaceDescriptionBlock({ name: 'x' })],
    [
      'malformed',
      'a packet of an interface that is not described',
      Buffer.concat([sectionHeaderBlock(), enhancedPacketBlock(onePacket)]),
    ],
    ['unsupported', 'another major version', Buffer.from(sectionHeaderBlock().fill(2, 12, 13))],
    [
      'unsupported',
      'a packet without a time',
      Buffer.concat([sectionHeaderBlock(), Buffer.from('03000000100000000000000010000000', 'hex')]),
    ],
    ['truncated', 'an empty file', Buffer.alloc(0)],
  ])('refuses as %s %s', (code, _what, file) => {
    expect(() => readPcapng(file)).toThrow(withCode(code));
  });

  it.each([
    ['a packet of an interface that is not there', { ...onePacket, interfaceIndex: 1 }],
    ['a time before 1970', { ...onePacket, timestampNs: -1n }],
    ['a time beyond 64 bits', { ...onePacket, timestampNs: 2n ** 64n }],
    ['a comment longer than an option can be', { ...onePacket, comments: ['x'.repeat(65_536)] }],
    ['flags of more than 32 bits', { ...onePacket, flags: 2 ** 32 }],
  ])('refuses to write %s', (_what, packet) => {
    expect(() => writePcapng({ interfaces: oneInterface, packets: [packet] })).toThrow(
      withCode('invalid-argument'),
    );
  });

  it('writes packets as they come, without waiting for the last one', () => {
    function* endless(): Generator<typeof onePacket> {
      for (;;) yield onePacket;
    }
    const blocks = pcapngBlocks({ interfaces: oneInterface, packets: endless() });
    const first = [blocks.next(), blocks.next(), blocks.next(), blocks.next()].map(
      ({ value }) => value as Buffer,
    );
    expect(readPcapng(Buffer.concat(first)).packets).toHaveLength(2);
  });
});

function errorOf(action: () => unknown): unknown {
  try {
    action();
    return undefined;
  } catch (error) {
    return error;
  }
}

function isPcapngErrorOrNone(error: unknown): boolean {
  return error === undefined || error instanceof PcapngError;
}
