import { afterEach, describe, expect, it } from 'vitest';

import { Gate } from '../../src/native/gate.ts';
import { SpareGate } from '../../src/network/spare-gate.ts';

const sizes = { slots: 2, ringBytes: 1 << 20 };

describe('the spare gate', () => {
  const spare = new SpareGate();
  const made: Gate[] = [];
  const make = (options: Partial<Parameters<typeof Gate.create>[0]> = {}) => {
    const gate = Gate.create({ ...sizes, ...options });
    made.push(gate);
    return gate;
  };
  afterEach(() => {
    spare.close();
    for (const gate of made.splice(0)) gate.close();
  });

  it('is given to the next who wants one of its sizes, once', () => {
    const gate = make();
    expect(spare.keep(gate, sizes)).toBe(true);
    expect(spare.take({ ...sizes, slots: 3 })).toBeNull();
    expect(spare.take({ ...sizes, ringBytes: 1 << 21 })).toBeNull();
    expect(spare.take(sizes)).toBe(gate);
    expect(spare.take(sizes)).toBeNull();
  });

  it('is never one that holds, or that has frames for a port still', () => {
    expect(spare.keep(make({ hold: true }), sizes)).toBe(false);
    const laden = make();
    laden.preload(1, [{ frame: Buffer.alloc(60), offsetNs: 0n }]);
    expect(spare.keep(laden, sizes)).toBe(false);
    expect(spare.take(sizes)).toBeNull();
  });

  it('is one at most: the latest', () => {
    const [first, second] = [make(), make()];
    spare.keep(first, sizes);
    spare.keep(second, sizes);
    expect(spare.take(sizes)).toBe(second);
  });
});
