import fc from 'fast-check';
import { expect, it } from 'vitest';
import { MarkerLog } from './log.ts';

const nonce = Buffer.from('01234567');
const origin = { host: 'h1', tap: 'tap0' };
const marker = { nonce, round: 1, part: 0, parts: 1, ...origin };

it('hears an origin in the round in which it spoke, and not in another', () => {
  const log = new MarkerLog(nonce);
  expect(log.missing(1, [origin])).toEqual([origin]);
  expect(log.lastHeardNs(1)).toBeNull();
  log.push(marker, 5n);
  expect(log.missing(1, [origin])).toEqual([]);
  expect(log.missing(2, [origin])).toEqual([origin]);
  expect(log.lastHeardNs(1)).toBe(5n);
});

it('passes over markers of another barrier', () => {
  const log = new MarkerLog(nonce);
  log.push({ ...marker, nonce: Buffer.from('76543210') }, 5n);
  expect(log.missing(1, [origin])).toEqual([origin]);
});

it('has heard an origin when every part has come, in any order and however often, and never before', () => {
  const parts = 4;
  const heard = fc.array(fc.record({ part: fc.nat({ max: parts - 1 }), tap: fc.constantFrom('a', 'b') }));
  fc.assert(
    fc.property(heard, (markers) => {
      const log = new MarkerLog(nonce);
      const seen = { a: new Set<number>(), b: new Set<number>() };
      let lastNs: bigint | null = null;
      for (const [place, { part, tap }] of markers.entries()) {
        const before = seen[tap].size;
        seen[tap].add(part);
        if (before < parts && seen[tap].size === parts) lastNs = BigInt(place);
        log.push({ ...marker, part, parts, tap }, BigInt(place));
        const silent = (['a', 'b'] as const).filter((name) => seen[name].size < parts);
        const origins = ['a', 'b'].map((name) => ({ host: 'h1', tap: name }));
        expect(log.missing(1, origins).map((one) => one.tap)).toEqual(silent);
        expect(log.lastHeardNs(1)).toBe(lastNs);
      }
    }),
  );
});
