import { describe, expect, it } from 'vitest';

import { longestChain, planStream } from './shorten.ts';

const chain = (ours: number, others: number) => [
  ...Array.from({ length: ours }, () => true),
  ...Array.from({ length: others }, () => false),
];

describe('a chain of images', () => {
  it('is left alone as long as it is short enough', () => {
    expect(planStream(chain(longestChain - 1, 1))).toBeNull();
  });

  it('is brought down to half of the bound when it is longer', () => {
    const last = planStream(chain(longestChain, 1))!;
    expect(longestChain + 1 - last).toBe(longestChain / 2);
  });

  it('loses layers of ours only', () => {
    expect(planStream(chain(3, 8))).toBe(2);
    expect(planStream(chain(1, 20))).toBeNull();
    expect(planStream(chain(0, 20))).toBeNull();
  });
});
