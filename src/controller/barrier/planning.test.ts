import { expect, it } from 'vitest';

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
  roundTripNs,
});

it('plans the cut late enough for the slowest host', () => {
  const atNs = planCut(1_000n, [clock(0n, 100), clock(0n, 500)]);
  expect(atNs).toBe(1_000n + BigInt(cutMarginNs) + 2_000n);
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
