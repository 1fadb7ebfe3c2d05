import { describe, expect, it } from 'vitest';

import { cutLeadNs } from '../../protocol/instant.ts';
import { exchangingMax } from '../hosts/clock-offset.ts';
import {
  cutMarginNs,
  planCut,
  planPause,
  resumeMarginNs,
  spreadNs,
  toControllerClock,
  toHostClock,
} from './planning.ts';

const clock = (offsetNs: bigint, roundTripNs: number) => ({
  offsetNs,
  errorNs: roundTripNs / 2,
  source: 'exchanges' as const,
  atNs: 0n,
  roundTripNs,
  usualRoundTripNs: 2 * roundTripNs,
  slowRoundTripNs: 4 * roundTripNs,
});

describe('the cut', () => {
  const clocks = [clock(0n, 100), clock(0n, 500)];

  it('comes late enough for the slowest host to be told, to agree, and to be told otherwise', () => {
    const { atNs, agreedByNs } = planCut(1_000n, clocks, 1);
    const slowNs = 2_000;
    expect(agreedByNs).toBe(1_000n + BigInt(cutMarginNs / 2 + slowNs));
    expect(atNs - cutLeadNs - agreedByNs).toBe(BigInt(cutMarginNs / 2 + slowNs));
  });

  it('is moved further ahead by each attempt', () => {
    const [first, second] = [planCut(0n, clocks, 1), planCut(0n, clocks, 2)];
    expect(second.atNs - first.atNs).toBe(BigInt(cutMarginNs + 2_000));
    expect(second.agreedByNs).toBeGreaterThan(first.agreedByNs);
  });

  it('leaves time for the turns of hosts that are more than are asked at once', () => {
    const many = (count: number) => Array.from({ length: count }, () => clock(0n, 500));
    const [few, twice] = [planCut(0n, many(exchangingMax), 1), planCut(0n, many(2 * exchangingMax), 1)];
    expect(twice.atNs - few.atNs).toBe(2_000n);
  });
});

it('plans one pause for all VMs, which the first to stop has to wait out', () => {
  const pauseNs = planPause(10_000n, [4_000n, 3_000n, 9_000n], [clock(0n, 200)]);
  expect(pauseNs).toBe(10_000n + BigInt(resumeMarginNs) + 200n - 3_000n);
});

it('moves instants between clocks and back', () => {
  const host = clock(-5_000n, 0);
  expect(toHostClock(7_000n, host)).toBe(2_000n);
  expect(toControllerClock(toHostClock(7_000n, host), host)).toBe(7_000n);
});

it('measures a spread', () => {
  expect(spreadNs([5n, 3n, 9n])).toBe(6);
  expect(spreadNs([4n])).toBe(0);
});
