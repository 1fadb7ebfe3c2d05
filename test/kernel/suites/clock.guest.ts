import { execFileSync } from 'node:child_process';
import { afterEach, describe, expect, it } from 'vitest';
import { realtimeErrorNs } from '../../../src/native/clock.ts';
import { until } from '../../network/network-lab.ts';
import { guestProgram } from './guest-program.ts';

const keep = (...how: string[]) => execFileSync(guestProgram('keep-clock'), how);

describe('how far CLOCK_REALTIME may be off', () => {
  afterEach(() => {
    keep('unkept');
  });

  it('is what the kernel was told, and grows until it is told again', () => {
    keep('1500');
    const errorNs = realtimeErrorNs();
    expect(errorNs).toBeGreaterThanOrEqual(1_500_000);
    // 500 ppm of the time since (MAXFREQ in the kernel's kernel/time/ntp.c).
    expect(errorNs).toBeLessThan(1_500_000 + 5_000_000);
    keep('20');
    expect(realtimeErrorNs()).toBeLessThan(1_500_000);
  });

  it('is not known where nobody keeps it, or while a leap second is near', async () => {
    expect(realtimeErrorNs()).toBeNull();
    keep('1500', 'leap');
    // The kernel looks at it once a second (second_overflow).
    await until(() => realtimeErrorNs() === null, 'the kernel knows of the leap second');
  });
});
