import { describe, expect, it } from 'vitest';

import { clockOffset, errorNsAt, HostClock, mutualErrorNs } from './clock-offset.ts';

const exchange = (sentAtNs: bigint, hostNs: bigint, receivedAtNs: bigint) => ({
  sentAtNs,
  hostNs,
  receivedAtNs,
});

describe('the offset of a clock', () => {
  it('comes from the exchange with the shortest round trip, and its error is bounded by half of it', () => {
    const exchanges = [exchange(1000n, 6000n, 3000n), exchange(10_000n, 15_050n, 10_200n)];
    expect(clockOffset(exchanges, 10_200n)).toEqual({
      offsetNs: 4950n,
      errorNs: 100,
      source: 'exchanges',
      atNs: 10_200n,
      roundTripNs: 200,
      usualRoundTripNs: 200,
      slowRoundTripNs: 2000,
    });
  });

  it('is less certain the longer ago it was measured, until a newer exchange is the better one', () => {
    const clock = new HostClock();
    clock.add(exchange(0n, 1000n, 200n));
    // 200 ppm of 10 s are 2 ms.
    expect(clock.at(10_000_000_200n)).toMatchObject({ offsetNs: 900n, errorNs: 2_000_100 });
    clock.add(exchange(10_000_000_000n, 10_000_500_000n, 10_001_000_000n));
    expect(clock.at(10_001_000_000n)).toMatchObject({ offsetNs: 0n, errorNs: 500_000 });
  });

  it('has a slow round trip, which is not that of a single exchange that something delayed', () => {
    const clock = new HostClock();
    for (const tripNs of [900n, 10n, 20n, 30n, 40n, 50n, 60n, 70n]) clock.add(exchange(0n, 0n, tripNs));
    expect(clock.at(900n)).toMatchObject({ roundTripNs: 10, usualRoundTripNs: 40, slowRoundTripNs: 70 });
    expect(clock.at(900n, 2)).toMatchObject({ roundTripNs: 60, usualRoundTripNs: 60, slowRoundTripNs: 70 });
  });

  it('was quick if its newest exchange took about as long as the shortest of several', () => {
    const clock = new HostClock();
    const quick = [100n, 110n, 900n, 120n, 200n, 90n].map((tripNs) => {
      clock.add(exchange(0n, 0n, tripNs));
      return clock.wasQuick;
    });
    // Of the first three nobody knows.
    expect(quick).toEqual([false, false, false, true, false, true]);
  });

  it('is known well enough without a new exchange for 15 s', () => {
    const clock = new HostClock();
    expect(clock.isFresh(0n)).toBe(false);
    clock.add(exchange(0n, 1000n, 2n));
    expect(clock.isFresh(15_000_000_002n)).toBe(true);
    expect(clock.isFresh(15_000_000_003n)).toBe(false);
  });

  it('forgets old exchanges', () => {
    const clock = new HostClock();
    clock.add(exchange(0n, 1000n, 2n));
    for (let at = 0n; at < 8n; at++) clock.add(exchange(at, 0n, at + 100n));
    expect(clock.at(107n).roundTripNs).toBe(100);
  });
});

describe('two hosts against each other', () => {
  const clock = (errorNs: number) => ({
    offsetNs: 0n,
    errorNs,
    source: 'exchanges' as const,
    atNs: 0n,
    roundTripNs: 0,
    usualRoundTripNs: 0,
    slowRoundTripNs: 0,
  });

  it('are known as well as the two worst clocks together, at the instant that is asked for', () => {
    expect(mutualErrorNs([clock(10), clock(30), clock(20)], 0n)).toBe(50);
    expect(mutualErrorNs([clock(10), clock(30)], 1_000_000_000n)).toBe(400_040);
    expect(errorNsAt(clock(10), -1_000_000_000n)).toBe(200_010);
  });

  it('need no offset if there is only one', () => {
    expect(mutualErrorNs([clock(10)], 0n)).toBe(0);
  });
});
