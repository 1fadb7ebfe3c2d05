import { describe, expect, it } from 'vitest';
import { judge } from './judge.ts';
import type { EndpointPlan, FlowPlan } from './plan.ts';
import type { EndpointReport, ReceivedFlow } from './report.ts';

const flow: FlowPlan = {
  id: 3,
  toMac: '02:00:00:00:00:02',
  recipients: ['b'],
  ratePerSecond: 100,
  minBytes: 60,
  maxBytes: 60,
};
const port = { kind: 'tap', device: 'tap0' } as const;
const plans = (flows: readonly FlowPlan[]): EndpointPlan[] => [
  { name: 'a', mac: '02:00:00:00:00:01', port, flows },
  { name: 'b', mac: '02:00:00:00:00:02', port, flows: [] },
];
const empty = { running: false, virtualNs: 0, stray: 0, foreign: 0, corrupted: 0, padded: 0 };
const received = (changes: Partial<ReceivedFlow>): ReceivedFlow => ({
  ...{ flow: 3, frames: 10, bytes: 600, expected: 10, duplicated: 0, reordered: 0, stale: 0, retagged: 0 },
  ...{ unsegmented: 0, tags: [], latencyNs: { min: 1, median: 2, p99: 3, max: 4 } },
  ...changes,
});
const reports = (got: readonly ReceivedFlow[], changes: Partial<EndpointReport> = {}): EndpointReport[] => [
  { ...empty, name: 'a', sent: [{ flow: 3, frames: 10, refused: 0, skipped: 0 }], received: [] },
  { ...empty, name: 'b', sent: [], received: [...got], ...changes },
];

describe('the verdict on traffic', () => {
  it('finds nothing wrong where every frame came once, in order', () => {
    const verdict = judge(plans([flow]), reports([received({})]));
    expect(verdict).toMatchObject({ sent: 10, lost: 0, duplicated: 0, reordered: 0, problems: [] });
  });

  it.each([
    ['lost frames', received({ frames: 8 }), { lost: 2 }],
    ['copies, which make up for no lost frame', received({ duplicated: 1 }), { lost: 1, duplicated: 1 }],
    ['frames that their sender has not sent', received({ frames: 12, expected: 12 }), { duplicated: 2 }],
    ['frames out of order', received({ reordered: 1, stale: 1, frames: 11 }), { reordered: 2 }],
    ['other tags', received({ tags: ['8100:7'] }), { mistagged: 10 }],
    ['tags that change', received({ retagged: 4 }), { mistagged: 4 }],
  ])('finds %s', (_, got, found) => {
    const verdict = judge(plans([flow]), reports([got]));
    expect(verdict).toMatchObject(found);
    expect(verdict.problems).toEqual([expect.stringMatching(/^flow 3 from a to b: \d+ /)]);
  });

  it('takes a flow of which nothing came for lost', () => {
    expect(judge(plans([flow]), reports([]))).toMatchObject({ lost: 10 });
  });

  it('asks for the tags that a port gives a frame', () => {
    const tagged = plans([{ ...flow, tagsAtRecipients: ['8100:7'] }]);
    expect(judge(tagged, reports([received({ tags: ['8100:7'] })])).problems).toEqual([]);
    expect(judge(tagged, reports([received({})]))).toMatchObject({ mistagged: 10 });
  });

  it('finds frames in the wrong place and damaged ones, and counts flooded ones apart', () => {
    const elsewhere = plans([{ ...flow, recipients: [] }]);
    const verdict = judge(elsewhere, reports([received({})], { corrupted: 2, stray: 5 }));
    expect(verdict).toMatchObject({ misdirected: 10, corrupted: 2, stray: 5, lost: 0 });
    expect(verdict.problems).toHaveLength(2);
  });

  it('does without no report', () => {
    expect(() => judge(plans([flow]), reports([]).slice(0, 1))).toThrow(/endpoint b has not reported/);
  });
});
