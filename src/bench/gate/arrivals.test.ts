import { describe, expect, it } from 'vitest';

import { faultsOf, type Arrival } from './arrivals.ts';

const arrived = (tap: number, ...numbers: readonly number[]): Arrival[] =>
  numbers.map((number) => ({ tap, number, atNs: 0n, intact: true }));
const none = { lost: 0, duplicated: 0, reordered: 0, damaged: 0 };

describe('faults of arrivals', () => {
  it('are none if each tap got its frames in order, whatever the order of taps', () => {
    expect(faultsOf([...arrived(0, 0, 1), ...arrived(1, 0), ...arrived(0, 2)], [3, 1])).toEqual(none);
  });

  it('are frames that did not come, came twice, or came late', () => {
    expect(faultsOf(arrived(0, 0, 2), [3])).toEqual({ ...none, lost: 1 });
    expect(faultsOf(arrived(0, 0, 1, 1), [2])).toEqual({ ...none, duplicated: 1 });
    expect(faultsOf(arrived(0, 1, 0), [2])).toEqual({ ...none, reordered: 1 });
  });

  it('are frames that nobody sent, or whose bytes are others: they make up for no lost one', () => {
    expect(faultsOf(arrived(0, 0, 7), [2])).toEqual({ ...none, lost: 1, damaged: 1 });
    expect(faultsOf([{ tap: 0, number: 0, atNs: 0n, intact: false }], [1])).toEqual({
      ...none,
      lost: 1,
      damaged: 1,
    });
  });
});
