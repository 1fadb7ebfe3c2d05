import { describe, expect, it } from 'vitest';

import { bucketsOf, mean } from './lateness.ts';

describe('the distribution of latenesses', () => {
  it('counts every value once, in the bucket that begins at it', () => {
    const counts = bucketsOf([0, 9, 10, 27, 28, 54, 55, 999, 1_000, 2_276_969]).map(({ count }) => count);
    expect(counts).toEqual([2, 2, 2, 1, 1, 1, 0, 0, 1]);
    expect(bucketsOf([5_000_000]).at(-1)).toEqual({ words: '1000000 ns and more', count: 1 });
  });

  it('has a mean', () => {
    expect(mean([1, 2, 6])).toBe(3);
  });
});
