import { describe, expect, test } from 'vitest';
import {
  monotonicNs,
  realtimeMinusMonotonicNs,
  realtimeNs,
  sleepUntil,
  taiNs,
} from '../../src/native/clock.ts';

describe('the clocks', () => {
  test("are the kernel's, in nanoseconds", () => {
    const before = process.hrtime.bigint();
    const read = monotonicNs();
    expect(read).toBeGreaterThanOrEqual(before);
    expect(process.hrtime.bigint()).toBeGreaterThanOrEqual(read);
    expect(Math.abs(Number(realtimeNs() / 1_000_000n) - Date.now())).toBeLessThan(1000);
    const leapSeconds = Math.round(Number(taiNs() - realtimeNs()) / 1e9);
    expect([0, 37]).toContain(leapSeconds); // 0 where nobody has told the kernel
  });

  test('differ by what realtimeMinusMonotonicNs says', () => {
    const low = realtimeNs() - monotonicNs();
    const difference = realtimeMinusMonotonicNs();
    expect(Math.abs(Number(difference - low))).toBeLessThan(50e6);
  });
});

describe('sleepUntil', () => {
  test('wakes at the instant and not before', async () => {
    for (const spinNs of [0, 500_000]) {
      const atNs = monotonicNs() + 20_000_000n;
      const { wokeNs, latenessNs } = await sleepUntil({ atNs, spinNs, realtimePriority: 10 });
      expect(wokeNs).toBeGreaterThanOrEqual(atNs);
      expect(latenessNs).toBe(Number(wokeNs - atNs));
      expect(monotonicNs()).toBeGreaterThanOrEqual(wokeNs);
    }
  });

  test('wakes at once for an instant of the past', async () => {
    const atNs = monotonicNs() - 1_000_000n;
    expect((await sleepUntil({ atNs, spinNs: 0 })).latenessNs).toBeGreaterThanOrEqual(1_000_000);
  });

  test('is cancelled by its signal, asleep as well as ahead', async () => {
    const far = monotonicNs() + 3_600_000_000_000n;
    const controller = new AbortController();
    const sleeping = sleepUntil({ atNs: far, spinNs: 0, signal: controller.signal });
    controller.abort(new Error('woken'));
    await expect(sleeping).rejects.toThrow('woken');
    await expect(sleepUntil({ atNs: far, spinNs: 0, signal: controller.signal })).rejects.toThrow('woken');
    await expect(sleepUntil({ atNs: far, spinNs: -1 })).rejects.toThrow(RangeError);
  });
});
