import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeMarker, encodeMarker, nonceBytes } from './codec.ts';

const bytes = (length: number) =>
  fc.uint8Array({ minLength: length, maxLength: length }).map((array) => Buffer.from(array));
const name = (maxLength: number) =>
  fc.string({ unit: fc.constantFrom(...'abcXYZ019.-_'), minLength: 1, maxLength });
const marker = fc.record({
  nonce: bytes(nonceBytes),
  round: fc.integer({ min: 1, max: 254 }),
  part: fc.nat({ max: 255 }),
  parts: fc.nat({ max: 255 }),
  // As long as names of hosts (protocol/names.ts) and of devices (IFNAMSIZ) may be.
  host: name(63),
  tap: name(15),
  destination: bytes(6).map((mac) => [...mac].map((byte) => byte.toString(16).padStart(2, '0')).join(':')),
  vlan: fc.option(fc.integer({ min: 1, max: 4094 })),
  fresh: fc.boolean(),
});

describe('a marker', () => {
  it('says as a frame what it said before, in any VLAN', () => {
    fc.assert(
      fc.property(marker, (sent) => {
        const { destination: _destination, vlan: _vlan, fresh: _fresh, ...said } = sent;
        expect(decodeMarker(encodeMarker(sent))).toEqual(said);
      }),
    );
  });

  it('is a frame that every link takes and the gate keeps', () => {
    fc.assert(
      fc.property(marker, (sent) => {
        const { length } = encodeMarker(sent);
        expect(length).toBeGreaterThanOrEqual(60);
        expect(length).toBeLessThanOrEqual(128);
      }),
    );
  });

  it('has a source that no switch learns, the same in every round, or another if it is to be fresh', () => {
    fc.assert(
      fc.property(marker, (sent) => {
        const source = encodeMarker(sent).subarray(6, 12);
        expect(source[0]! & 0b11).toBe(0b11);
        const next = encodeMarker({ ...sent, round: sent.round + 1 }).subarray(6, 12);
        expect(next.equals(source)).toBe(!sent.fresh);
      }),
    );
  });

  it('is never read out of anything else, nor out of a part of one', () => {
    fc.assert(fc.property(fc.uint8Array(), (garbage) => decodeMarker(Buffer.from(garbage)) === null));
    // The shortest has 38 bytes, and names of one letter.
    fc.assert(
      fc.property(marker, fc.nat({ max: 37 }), (sent, length) => {
        expect(decodeMarker(encodeMarker(sent).subarray(0, length))).toBeNull();
      }),
    );
    const other = encodeMarker({
      nonce: Buffer.alloc(nonceBytes),
      ...{
        round: 1,
        part: 0,
        parts: 1,
        fresh: true,
        host: 'h1',
        tap: 'tap0',
        destination: '02:00:00:00:00:01',
        vlan: null,
      },
    });
    other[22] = 2;
    expect(decodeMarker(other)).toBeNull();
  });

  it('refuses names that do not fit', () => {
    const sent = {
      nonce: Buffer.alloc(nonceBytes),
      round: 1,
      part: 0,
      parts: 1,
      fresh: true,
      destination: '02:00:00:00:00:01',
      vlan: null,
    };
    expect(() => encodeMarker({ ...sent, host: 'h'.repeat(100), tap: 'tap0' })).toThrow(RangeError);
  });
});
