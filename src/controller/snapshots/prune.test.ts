import { describe, expect, it } from 'vitest';

import { makeSnapshot } from '../../../test/api/samples.ts';
import type { Snapshot } from '../../protocol/resources.ts';
import { selectForPruning } from './prune.ts';

const at = (number: number, createdAt: string, given: Partial<Snapshot> = {}) =>
  makeSnapshot(number, { createdAt: `${createdAt}:00.000Z`, ...given });
const nothing = { keepLast: 0, keepHourly: 0, keepDaily: 0, keepWeekly: 0, includeKept: false };
const removedBy = (all: Snapshot[], policy: Partial<typeof nothing>) =>
  selectForPruning(all, { ...nothing, ...policy })
    .removed.map(({ createdAt }) => createdAt.slice(0, 16))
    .toSorted();

describe('pruning', () => {
  const all = [
    at(1, '2026-11-20T23:50'),
    at(2, '2026-11-21T10:00'),
    at(3, '2026-11-22T10:10'),
    at(4, '2026-11-22T10:50'),
    at(5, '2026-11-22T12:00'),
  ];

  it('keeps the newest ones, in whatever order they come', () => {
    expect(removedBy(all.toReversed(), { keepLast: 3 })).toEqual(['2026-11-20T23:50', '2026-11-21T10:00']);
    expect(removedBy(all, { keepLast: 99 })).toEqual([]);
  });

  it('keeps the newest of each hour and of each day that has any', () => {
    const others = ['2026-11-20T23:50', '2026-11-21T10:00', '2026-11-22T10:10'];
    expect(removedBy(all, { keepHourly: 2 })).toEqual(others);
    expect(removedBy(all, { keepDaily: 2 })).toEqual([
      '2026-11-20T23:50',
      '2026-11-22T10:10',
      '2026-11-22T10:50',
    ]);
  });

  it('counts weeks from Monday', () => {
    const sundayAndMonday = [at(1, '2026-11-22T23:59'), at(2, '2026-11-23T00:01'), at(3, '2026-11-29T23:00')];
    expect(removedBy(sundayAndMonday, { keepWeekly: 2 })).toEqual(['2026-11-23T00:01']);
  });

  it('keeps what any rule keeps, and says by which', () => {
    const { kept } = selectForPruning(all, { ...nothing, keepLast: 1, keepDaily: 1 });
    expect(kept.map(({ reasons }) => reasons)).toEqual([['last', 'daily']]);
  });

  it('leaves named and labelled ones alone unless told otherwise, and always those that are not whole', () => {
    const special = [
      at(1, '2026-11-01T00:00', { name: 'release' }),
      at(2, '2026-11-02T00:00', { labels: { keep: '' } }),
      at(3, '2026-11-03T00:00', { labels: { branch: 'keep' } }),
      at(4, '2026-11-04T00:00', { state: 'storing' }),
      at(5, '2026-11-05T00:00'),
    ];
    expect(removedBy(special, { keepLast: 1 })).toEqual(['2026-11-03T00:00']);
    expect(removedBy(special, { keepLast: 1, includeKept: true })).toHaveLength(3);
  });
});
