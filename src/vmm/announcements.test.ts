import { describe, expect, it } from 'vitest';

import { withoutAnnouncements } from './announcements.ts';

function section(id: number, name: string, data: Buffer): Buffer {
  const number = Buffer.alloc(4);
  number.writeUInt32BE(id);
  const label = Buffer.concat([Buffer.from([name.length]), Buffer.from(name)]);
  return Buffer.concat([Buffer.from([4]), number, label, Buffer.alloc(8), data, Buffer.from([0x7e]), number]);
}

/** The lower half, the length of the configuration and that, and all features in a subsection. */
function device(lower: bigint, all: bigint): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32BE(Number(lower & 0xffff_ffffn));
  head.writeUInt32BE(60, 4);
  const value = Buffer.alloc(8);
  value.writeBigUInt64BE(all);
  const name = 'virtio/64bit_features';
  const label = Buffer.concat([Buffer.from([5, name.length]), Buffer.from(name), Buffer.from([0, 0, 0, 1])]);
  return Buffer.concat([Buffer.alloc(40, 9), head, Buffer.alloc(60, 1), label, value]);
}

const announce = 1n << 21n;
const others = (1n << 32n) | (1n << 17n) | (1n << 22n);
const both = others | announce;

describe('a device state to be loaded', () => {
  it('arms no announcement of its virtio NICs, and has everything else as it was', () => {
    const parts = (lower: bigint) => [
      section(7, '0000:00:02.0/virtio-blk', device(both, both)),
      section(8, '0000:00:03.0/virtio-net', device(lower, both)),
      section(9, '0000:00:04.0/virtio-net', Buffer.concat([Buffer.alloc(3), device(lower, both)])),
    ];
    expect(withoutAnnouncements(Buffer.concat(parts(both)))).toEqual(Buffer.concat(parts(others)));
  });

  it('stays as it is where a NIC has no copy of its features, or there is none', () => {
    const legacy = Buffer.concat([
      section(8, '0000:00:03.0/virtio-net', Buffer.alloc(64, 1)),
      section(9, '0000:00:04.0/virtio-blk', device(both, both)),
    ]);
    for (const state of [legacy, Buffer.from('/virtio-net'), Buffer.alloc(0)])
      expect(withoutAnnouncements(state)).toEqual(state);
  });
});
