import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DrainTracker } from './drain-tracker.ts';

const none = { backlogs: [], awaited: 0 };
const waiting = (packets: number) => [{ link: 'tap0', qdisc: 'tbf', packets }];

describe('the decision that a host is drained', () => {
  it('waits until it was quiet for long enough', () => {
    const tracker = new DrainTracker({ quietMs: 5, boundMs: 1000 });
    expect(tracker.push({ atMs: 100, arrivals: 3, ...none })).toBe('draining');
    expect(tracker.push({ atMs: 104, arrivals: 3, ...none })).toBe('draining');
    expect(tracker.push({ atMs: 105, arrivals: 3, ...none })).toBe('drained');
    expect(tracker.report()).toEqual({
      ...{ waitedMs: 5, quietMs: 5, markersMs: 0, heldFrames: 0, backlog: [], complete: true },
    });
  });

  it('begins anew with every frame that comes, and with every queue that is not empty', () => {
    const tracker = new DrainTracker({ quietMs: 5, boundMs: 1000 });
    tracker.push({ atMs: 0, arrivals: 0, ...none, backlogs: waiting(9) });
    expect(tracker.push({ atMs: 10, arrivals: 0, ...none, backlogs: waiting(2) })).toBe('draining');
    expect(tracker.push({ atMs: 14, arrivals: 4, ...none, backlogs: waiting(0) })).toBe('draining');
    expect(tracker.push({ atMs: 18, arrivals: 4, ...none })).toBe('draining');
    expect(tracker.push({ atMs: 19, arrivals: 4, ...none })).toBe('drained');
    expect(tracker.report()).toMatchObject({
      heldFrames: 4,
      backlog: [{ link: 'tap0', qdisc: 'tbf', peakPackets: 9 }],
    });
  });

  it('waits for every marker, however quiet it is, and not again for one that has come', () => {
    const tracker = new DrainTracker({ quietMs: 5, boundMs: 1000 });
    for (let atMs = 0; atMs <= 40; atMs += 10)
      expect(tracker.push({ atMs, arrivals: 0, backlogs: [], awaited: 2 })).toBe('draining');
    expect(tracker.push({ atMs: 50, arrivals: 0, backlogs: [], awaited: 1 })).toBe('draining');
    expect(tracker.push({ atMs: 60, arrivals: 0, ...none })).toBe('drained');
    expect(tracker.report()).toMatchObject({ waitedMs: 60, markersMs: 60, quietMs: 60 });
  });

  it('is overdue when a marker does not come', () => {
    const tracker = new DrainTracker({ quietMs: 5, boundMs: 20 });
    expect(tracker.push({ atMs: 0, arrivals: 0, backlogs: [], awaited: 1 })).toBe('draining');
    expect(tracker.push({ atMs: 20, arrivals: 0, backlogs: [], awaited: 1 })).toBe('overdue');
    expect(tracker.report()).toMatchObject({ complete: false, markersMs: 20 });
  });

  it('says so when the time runs out first', () => {
    const tracker = new DrainTracker({ quietMs: 5, boundMs: 20 });
    for (let atMs = 0; atMs < 20; atMs++)
      expect(tracker.push({ atMs, arrivals: atMs, ...none })).toBe('draining');
    expect(tracker.push({ atMs: 20, arrivals: 20, ...none })).toBe('overdue');
    expect(tracker.report()).toMatchObject({ complete: false, waitedMs: 20 });
  });

  it('never takes a host for drained while a queue has frames, a marker is missing, or within the quiet time after a movement', () => {
    const steps = fc.array(
      fc.record({
        ...{ waitMs: fc.nat({ max: 20 }), came: fc.nat({ max: 2 }) },
        ...{ packets: fc.nat({ max: 2 }), markers: fc.nat({ max: 2 }) },
      }),
      { minLength: 1 },
    );
    fc.assert(
      fc.property(steps, fc.nat({ max: 10 }), fc.nat({ max: 4 }), (path, quietMs, expected) => {
        const tracker = new DrainTracker({ quietMs, boundMs: 1e9 });
        let [atMs, arrivals, movedMs, awaited] = [0, 0, 0, expected];
        for (const [step, { waitMs, came, packets, markers }] of path.entries()) {
          atMs += waitMs;
          arrivals += came;
          awaited = Math.max(0, awaited - markers);
          if (came > 0 || packets > 0 || step === 0) movedMs = atMs;
          if (tracker.push({ atMs, arrivals, backlogs: waiting(packets), awaited }) !== 'drained') continue;
          expect([packets, awaited]).toEqual([0, 0]);
          expect(atMs - movedMs).toBeGreaterThanOrEqual(quietMs);
        }
      }),
    );
  });
});
