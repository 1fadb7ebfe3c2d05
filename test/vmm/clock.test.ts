import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { planClockShift } from '../../src/vmm/clock-shift.ts';
import { until } from '../../src/lab/processes.ts';
import { ClockGuest, type ClockReading } from './clock-guest.ts';

const second = 1_000_000_000n;
/** Of a guest's own measurement of its TSC, against which it counts: some millionths. */
const tscError = 100_000n;

describe.each(['host', 'vm'])(
  'a guest whose RTC follows the clock of the %s',
  { timeout: 180_000 },
  (clock) => {
    let guest: ClockGuest;
    let last: ClockReading;
    let stoppedAtMs: number;
    const elapsedNs = () => BigInt(Date.now() - stoppedAtMs) * 1_000_000n;

    beforeAll(async () => {
      guest = await ClockGuest.saved(`base=utc,clock=${clock}`);
      stoppedAtMs = Date.now();
      last = (await guest.before()).at(-1)!;
      await until(async () => elapsedNs() > 4n * second, { timeoutMs: 10_000 });
    }, 180_000);
    afterAll(() => guest?.remove());

    it('goes on from the instant of its stop when time is hidden, by all its clocks', async () => {
      const { told } = await guest.restored(
        planClockShift('hidden', { elapsedNs: elapsedNs(), hiddenNs: 0n }),
      );
      const first = told[0]!;
      const passedNs = first.monotonicNs - last.monotonicNs;
      // The host's clock has gone on by four seconds and more.
      expect(passedNs).toBeLessThan(3n * second);
      expectTogether(first, passedNs);
      expect(first.rtcS - last.rtcS).toBeLessThan(4);
    });

    it.each([
      ['a few seconds', 0n],
      ['an hour that was hidden before', 3_600n],
      ['thirty days', 30n * 86_400n],
    ])('is set to now after %s, and all its clocks and timers with it', async (_, hiddenS) => {
      const shift = planClockShift('advance', { elapsedNs: elapsedNs(), hiddenNs: hiddenS * second });
      const { told } = await guest.restored(shift);
      const first = told[0]!;
      const beyondNs = first.monotonicNs - last.monotonicNs - shift.virtualNs;
      const errorNs = shift.virtualNs / tscError;
      expect(beyondNs).toBeGreaterThan(-errorNs);
      // It has run since, until it said so.
      expect(beyondNs).toBeLessThan(errorNs + 3n * second);
      expectTogether(first, first.monotonicNs - last.monotonicNs);
      expect(first.lateNs).toBeGreaterThan(shift.virtualNs - second - errorNs);
      // An RTC that follows the host has known of the time all along, but for what was hidden before.
      const rtcPassedS = BigInt(first.rtcS - last.rtcS) - (clock === 'host' ? 0n : hiddenS);
      expect(rtcPassedS).toBeGreaterThanOrEqual(3n);
    });

    /** CLOCK_REALTIME and CLOCK_BOOTTIME against CLOCK_MONOTONIC; the three are read one after another. */
    function expectTogether(first: ClockReading, monotonicPassedNs: bigint): void {
      const apart = (passedNs: bigint) => Math.abs(Number(passedNs - monotonicPassedNs));
      expect(apart(first.realtimeNs - last.realtimeNs)).toBeLessThan(0.2e9);
      expect(apart(first.boottimeNs - last.boottimeNs)).toBeLessThan(0.2e9);
    }
  },
);
