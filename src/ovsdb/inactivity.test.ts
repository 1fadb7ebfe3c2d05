import { describe, expect, it } from 'vitest';
import { InactivityProbe } from './inactivity.ts';

describe('InactivityProbe', () => {
  it('probes after one silent interval and gives up after a second', () => {
    const probe = new InactivityProbe();
    expect([probe.elapsed(), probe.elapsed(), probe.elapsed()]).toEqual(['alive', 'probe', 'dead']);
  });

  it('takes any sign of life as an answer', () => {
    const probe = new InactivityProbe();
    probe.elapsed();
    expect(probe.elapsed()).toBe('probe');
    probe.heard();
    expect([probe.elapsed(), probe.elapsed(), probe.elapsed()]).toEqual(['alive', 'probe', 'dead']);
  });
});
