import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { inMakingOrder } from './qdisc-order.ts';

const ROOT = 0xffffffff;
const root = { handle: 0x10000, parent: ROOT };
const inner = { handle: 0x10001, parent: ROOT };
const leaf = { handle: 0x10010, parent: 0x10001 };
const nested = { handle: 0x80000000, parent: 0x10010 };
const below = { handle: 0x90000000, parent: 0x80000001 };

describe('the order in which queueing disciplines are made', () => {
  it('has each after what it hangs on, however they were listed', () => {
    const shuffled = (items: { handle: number; parent: number }[]) =>
      fc.shuffledSubarray(items, { minLength: items.length });
    fc.assert(
      fc.property(shuffled([root, nested, below]), shuffled([inner, leaf]), (qdiscs, classes) => {
        const order = inMakingOrder(qdiscs, classes).map(({ item }) => item);
        expect(order).toEqual([root, inner, leaf, nested, below]);
      }),
    );
  });

  it('has what hangs on nothing at its end, where the kernel will refuse it', () => {
    const lost = { handle: 0x30000, parent: 0x20001 };
    expect(inMakingOrder([lost, root], []).map(({ item }) => item)).toEqual([root, lost]);
  });
});
