import { describe, expect, it } from 'vitest';

import { medianAtMost, quantile } from './bench.ts';

describe('figures of a benchmark', () => {
  it('interpolate quantiles between values', () => {
    expect(quantile([4, 1, 3, 2], 0.5)).toBe(2.5);
    expect(quantile([1, 2, 3], 1)).toBe(3);
    expect(() => quantile([], 0.5)).toThrow(RangeError);
  });

  it('compare the median with the limit', () => {
    const one = { metric: 'm', unit: 'ms', values: [1, 2, 30] };
    expect(medianAtMost({ ...one, limit: 2 })).toMatchObject({ value: 2, met: true, goal: '≤ 2' });
    expect(medianAtMost({ ...one, limit: 1.9 })).toMatchObject({ met: false });
  });
});
