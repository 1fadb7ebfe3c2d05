import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DrainTracker } from './drain-tracker.ts';

const waiting = (packets: number) => [{ link: 'tap0', qdisc: 'tbf', packets }];

describe('the decision that a host is drained', () => {
  it('waits until it was quiet for long enough', () => {
    const tracker = new DrainTracker({ quietMs: 5, boundMs: 1000 });
    expect(tracker.push({ atMs: 100, arrivals: 3, backlogs: [] })).toBe('draining');
    expect(tracker.push({ atMs: 104, arrivals: 3, backlogs: [] })).toBe('draining');
    expect(tracker.push({ atMs: 105, arrivals: 3, backlogs: [] })).toBe('drained');
    expect(tracker.report()).toEqual({ waitedMs: 5, quietMs: 5, heldFrames: 0, backlog: [], complete: true });
  });

  it('begins anew with every frame that comes, and with every queue that is not empty', () => {
    const tracker = new DrainTracker({ quietMs: 5, boundMs: 1000 });
    tracker.push({ atMs: 0, arrivals: 0, backlogs: waiting(9) });
    expect(tracker.push({ atMs: 10, arrivals: 0, backlogs: waiting(2) })).toBe('draining');
    expect(tracker.push({ atMs: 14, arrivals: 4, backlogs: waiting(0) })).toBe('draining');
    expect(tracker.push({ atMs: 18, arrivals: 4, backlogs: [] })).toBe('draining');
    expect(tracker.push({ atMs: 19, arrivals: 4, backlogs: [] })).toBe('drained');
    expect(tracker.report()).toMatchObject({
      heldFrames: 4,
      backlog: [{ link: 'tap0', qdisc: 'tbf', peakPackets: 9 }],
    });
  });

  it('says so when the time runs out first', () => {
    const tracker = new DrainTracker({ quietMs: 5, boundMs: 20 });
    for (let atMs = 0; atMs < 20; atMs++) expect(tracker.push({ atMs, arrivals: atMs, backlogs: [] })).toBe('draining');
    expect(tracker.push({ atMs: 20, arrivals: 20, backlogs: [] })).toBe('overdue');
    expect(tracker.report()).toMatchObject({ complete: false, waitedMs: 20 });
  });

  it('never takes a host for drained while a queue has frames or within the quiet time after a movement', () => {
    const steps = fc.array(
      fc.record({ waitMs: fc.nat({ max: 20 }), came: fc.nat({ max: 2 }), packets: fc.nat({ max: 2 }) }),
      { minLength: 1 },
    );
    fc.assert(
      fc.property(steps, fc.nat({ max: 10 }), (path, quietMs) => {
        const tracker = new DrainTracker({ quietMs, boundMs: 1e9 });
        let [atMs, arrivals, movedMs] = [0, 0, 0];
        for (const { waitMs, came, packets } of path) {
          atMs += waitMs;
          arrivals += came;
          if (came > 0 || packets > 0 || atMs === waitMs) movedMs = atMs;
          if (tracker.push({ atMs, arrivals, backlogs: waiting(packets) }) !== 'drained') continue;
          expect(packets).toBe(0);
          expect(atMs - movedMs).toBeGreaterThanOrEqual(quietMs);
        }
      }),
    );
  });
});
