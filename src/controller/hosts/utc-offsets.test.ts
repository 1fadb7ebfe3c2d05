import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { mutualErrorNs, type MeasuredClock } from './clock-offset.ts';
import { offsetsByUtc } from './utc-offsets.ts';

const utcNs = 1_800_000_000_000_000_000n;

/** A host whose clock really is that much ahead of the controller's, as it was measured and as it says. */
function clockOf(truth: {
  offsetNs: bigint;
  exchangeErrorNs: number;
  measuredWrongNs?: number;
  saysErrorNs?: number | null;
  saysWrongNs?: number;
}): MeasuredClock {
  const { offsetNs, exchangeErrorNs, measuredWrongNs = 0, saysErrorNs = null, saysWrongNs = 0 } = truth;
  const aheadNs = utcNs - offsetNs + BigInt(saysWrongNs);
  return {
    offsetNs: offsetNs + BigInt(measuredWrongNs),
    errorNs: exchangeErrorNs,
    source: 'exchanges',
    atNs: 0n,
    ...{ roundTripNs: 0, usualRoundTripNs: 0, slowRoundTripNs: 0 },
    utc: saysErrorNs === null ? null : { aheadNs, errorNs: saysErrorNs },
  };
}

const kept = { exchangeErrorNs: 2_000_000, saysErrorNs: 20_000 };

describe('offsets of hosts that say what UTC is', () => {
  it('are known by that where it bounds them better than the exchanges, whatever error these have', () => {
    const first = clockOf({ ...kept, offsetNs: 5_000n, measuredWrongNs: 1_900_000 });
    const second = clockOf({ ...kept, offsetNs: -7_000n, measuredWrongNs: -1_500_000 });
    const [a, b] = offsetsByUtc([first, second]);
    expect(a!.offsetNs - b!.offsetNs).toBe(12_000n);
    expect([a!.source, b!.source]).toEqual(['utc', 'utc']);
    expect(mutualErrorNs([a!, b!], 0n)).toBe(40_000);
  });

  it.each([
    ['one says nothing of it', { exchangeErrorNs: 2_000_000 }],
    ['the exchanges tell more', { exchangeErrorNs: 2_000_000, saysErrorNs: 9_000_000 }],
    ['one contradicts the exchanges, as after a leap second', { ...kept, saysWrongNs: 1_000_000_000 }],
  ])('are known by the exchanges if %s', (_, third) => {
    const clocks = [
      clockOf({ ...kept, offsetNs: 1n }),
      clockOf({ ...kept, offsetNs: 2n }),
      clockOf({ ...third, offsetNs: 3n }),
    ];
    expect(offsetsByUtc(clocks)).toBe(clocks);
  });

  it('of one host alone are as they were', () => {
    const clocks = [clockOf({ ...kept, offsetNs: 1n })];
    expect(offsetsByUtc(clocks)).toBe(clocks);
  });

  it('are never further from the truth, against each other, than they say', () => {
    const share = fc.double({ min: -1, max: 1, noNaN: true });
    const errorNs = fc.integer({ min: 1, max: 10_000_000 });
    const host = fc.record({ offsetNs: fc.bigInt({ min: -(10n ** 15n), max: 10n ** 15n }), errorNs, share });
    const hosts = fc.array(fc.tuple(host, errorNs, share), { minLength: 2, maxLength: 6 });
    fc.assert(
      fc.property(hosts, (drawn) => {
        const clocks = drawn.map(([{ offsetNs, errorNs: exchangeErrorNs, share: off }, saysErrorNs, lie]) =>
          clockOf({
            ...{ offsetNs, exchangeErrorNs, saysErrorNs },
            measuredWrongNs: Math.trunc(off * exchangeErrorNs),
            saysWrongNs: Math.trunc(lie * saysErrorNs),
          }),
        );
        const found = offsetsByUtc(clocks);
        for (const [i, a] of found.entries()) {
          for (const [j, b] of found.entries()) {
            const trueNs = drawn[i]![0].offsetNs - drawn[j]![0].offsetNs;
            const wrongNs = Math.abs(Number(a.offsetNs - b.offsetNs - trueNs));
            expect(wrongNs).toBeLessThanOrEqual(a.errorNs + b.errorNs);
          }
        }
      }),
    );
  });
});
