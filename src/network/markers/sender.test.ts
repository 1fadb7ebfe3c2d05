import fc from 'fast-check';
import { expect, it } from 'vitest';
import { repetitionsMs } from './sender.ts';

it('repeats soon at first, then ever more seldom, and not beyond the bound', () => {
  expect([...repetitionsMs(1_000)]).toEqual([5, 10, 20, 40, 80, 160, 250, 250]);
  fc.assert(
    fc.property(fc.nat({ max: 20_000 }), (boundMs) => {
      const delays = [...repetitionsMs(boundMs)];
      expect(delays.reduce((sum, delayMs) => sum + delayMs, 0)).toBeLessThanOrEqual(boundMs);
      expect(delays).toEqual([...delays].sort((a, b) => a - b));
    }),
  );
});
