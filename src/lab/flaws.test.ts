import { describe, expect, it } from 'vitest';

import { flawsOf } from './flaws.ts';
import type { Judgement } from './judge.ts';

const flawless: Judgement = {
  ...{
    guests: 2,
    sent: 100,
    received: 100,
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
    sendErrors: 0,
  },
  ...{ tcpBytes: 1, tcpMismatches: 0, tcpRetransmissions: 0, tcpTimeouts: 0, tcpFailures: 0, pending: 0 },
  ...{ largestGapNs: 0, largestGapBeforeNs: 0, clockJumpNs: 0, tscJumpNs: 0, disturbedStreams: [] },
};
const drops = new Map([["h1: the switch's socket 38 of underlay", 3]]);
const none = new Map<string, number>();

describe('flaws that the network does not explain', () => {
  it('are a lost datagram and a segment sent again where nothing was dropped', () => {
    expect(flawsOf(flawless, none)).toEqual([]);
    expect(flawsOf({ ...flawless, lost: 1 }, none)).toEqual(['lost: 1; the network itself dropped nothing']);
    expect(flawsOf({ ...flawless, tcpRetransmissions: 1 }, none)).toHaveLength(1);
  });

  it('are only what is missing beyond the drops, which are named', () => {
    expect(flawsOf({ ...flawless, lost: 3, tcpRetransmissions: 9 }, drops)).toEqual([]);
    const [flaw] = flawsOf({ ...flawless, lost: 4 }, drops);
    expect(flaw).toBe("lost: 4; the network itself dropped h1: the switch's socket 38 of underlay 3");
  });

  it('are copies, changed order and damage, whatever was dropped', () => {
    for (const key of ['duplicated', 'reordered', 'corrupted', 'tcpMismatches', 'tcpFailures'] as const)
      expect(flawsOf({ ...flawless, [key]: 1 }, drops)).toEqual([`${key}: 1`]);
    expect(flawsOf({ ...flawless, received: 0 }, drops)).toEqual(['nothing was received']);
  });
});
