import { describe, expect, it } from 'vitest';

import { cutLeadNs } from '../../protocol/instant.ts';
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
  atNs: 0n,
  roundTripNs,
  slowestRoundTripNs: 2 * roundTripNs,
});

describe('the cut', () => {
  const clocks = [clock(0n, 100), clock(0n, 500)];

  it('comes late enough for the slowest host to be told, to agree, and to be told otherwise', () => {
    const { atNs, agreedByNs } = planCut(1_000n, clocks, 1);
    expect(atNs).toBe(1_000n + cutLeadNs + BigInt(cutMarginNs) + 3_000n);
    expect(agreedByNs).toBe(1_000n + BigInt(cutMarginNs / 2) + 2_000n);
    expect(atNs - cutLeadNs - agreedByNs).toBeGreaterThan(BigInt(cutMarginNs / 2));
  });

  it('is moved further ahead by each attempt', () => {
    const [first, second] = [planCut(0n, clocks, 1), planCut(0n, clocks, 2)];
    expect(second.atNs - first.atNs).toBe(BigInt(cutMarginNs + 1000));
    expect(second.agreedByNs).toBeGreaterThan(first.agreedByNs);
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
