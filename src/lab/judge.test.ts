import { describe, expect, it } from 'vitest';
import { isFlawless, judge } from './judge.ts';
import { parseSerial, reportsIn, type GuestReport, type GuestStream } from './report.ts';

const SECOND = 1e9;

function stream(changes: Partial<GuestStream> = {}): GuestStream {
  return { to: 2, rtoUs: 204_000, retransmissions: 0, retransmits: 0, backoff: 0, lost: 0, ...changes };
}

function report(second: number, changes: Partial<GuestReport> = {}): GuestReport {
  return {
    t: 'report',
    id: 'a',
    ready: true,
    uptimeNs: second * SECOND,
    sent: second * 100,
    received: second * 100,
    lost: 0,
    duplicated: 0,
    reordered: 0,
    corrupted: 0,
    sendErrors: 0,
    tcpBytes: second * 1000,
    tcpMismatches: 0,
    tcpRetransmissions: 0,
    tcpTimeouts: 0,
    tcpFailures: 0,
    largestGapNs: 1e7,
    gapNs: 1e7,
    clockJumpNs: 0,
    tscJumpNs: 0,
    peers: 1,
    peersReached: 1,
    streams: [stream()],
    ...changes,
  };
}

describe('the judge', () => {
  it('counts what happened between two moments, over all guests', () => {
    const a = [report(1, { lost: 3 }), report(2, { lost: 3 }), report(3, { lost: 5, tcpRetransmissions: 2 })];
    const b = [report(1, { id: 'b' }), report(2, { id: 'b' }), report(3, { id: 'b', reordered: 1 })];
    const judgement = judge([
      { reports: a, fromNs: 2 * SECOND },
      { reports: b, fromNs: 2 * SECOND },
    ]);
    expect(judgement).toMatchObject({
      guests: 2,
      sent: 200,
      lost: 2,
      reordered: 1,
      tcpRetransmissions: 2,
      tcpBytes: 2000,
    });
    expect(isFlawless(judgement)).toBe(false);
  });

  it('does not call a frame lost that is still in flight', () => {
    const judgement = judge([{ reports: [report(1), report(2, { received: 190 })], fromNs: SECOND }]);
    expect(judgement).toMatchObject({ lost: 0, pending: 10 });
    expect(isFlawless(judgement)).toBe(true);
  });

  it('is not satisfied when a stream sent something twice, or its timer ran out', () => {
    const between = (before: Partial<GuestReport>, after: Partial<GuestReport>) =>
      judge([{ reports: [report(1, before), report(2, after), report(3, after)], fromNs: SECOND }]);
    expect(isFlawless(between({}, {}))).toBe(true);
    const once = between(
      {},
      { tcpRetransmissions: 1, streams: [stream({ retransmissions: 1, rtoUs: 408_000 })] },
    );
    expect(isFlawless(once)).toBe(false);
    expect(once.disturbedStreams).toEqual([
      {
        ...{ from: 'a', to: 2, retransmissions: 1, backoff: 0, lost: 0 },
        rtoBeforeUs: 204_000,
        rtoAfterUs: 408_000,
      },
    ]);
    expect(isFlawless(between({}, { tcpTimeouts: 1 }))).toBe(false);
    expect(isFlawless(between({}, { streams: [stream({ backoff: 1, retransmits: 1 })] }))).toBe(false);
  });

  it('does not hold against a snapshot what a stream sent twice before it', () => {
    const earlier = { tcpRetransmissions: 4, tcpTimeouts: 2, streams: [stream({ retransmissions: 4 })] };
    const judgement = judge([{ reports: [report(1, earlier), report(2, earlier)], fromNs: SECOND }]);
    expect(judgement).toMatchObject({ tcpRetransmissions: 0, tcpTimeouts: 0, disturbedStreams: [] });
    expect(isFlawless(judgement)).toBe(true);
  });

  it('is not satisfied when nothing was received', () => {
    expect(isFlawless(judge([{ reports: [report(1), report(2, { received: 100 })], fromNs: SECOND }]))).toBe(
      false,
    );
  });

  it('tells gaps before the moment from those after it, and shows a clock jump only where it happened', () => {
    const reports = [report(1, { gapNs: 5e7, clockJumpNs: 4000 }), report(2), report(3, { gapNs: 2e7 })].map(
      (one) => ({
        ...one,
        clockJumpNs: 4000,
      }),
    );
    expect(judge([{ reports, fromNs: 2 * SECOND }])).toMatchObject({
      largestGapBeforeNs: 5e7,
      largestGapNs: 2e7,
      clockJumpNs: 0,
    });
    const jumped = [...reports, report(4, { clockJumpNs: 9_000_000 })];
    expect(judge([{ reports: jumped, fromNs: 2 * SECOND }]).clockJumpNs).toBe(9_000_000);
    expect(judge([{ reports: jumped, fromNs: 2 * SECOND, toNs: 3 * SECOND }]).clockJumpNs).toBe(0);
  });

  it('leaves the boot out, and refuses a time line that goes back', () => {
    const booting = report(1, { ready: false, lost: 9 });
    expect(judge([{ reports: [booting, report(2), report(3)], fromNs: 0 }]).lost).toBe(0);
    expect(() => judge([{ reports: [report(5), report(3)], fromNs: 0 }])).toThrow(/cut at the restore/);
    expect(() => judge([{ reports: [booting], fromNs: 0 }])).toThrow(/no report/);
  });
});

describe('a serial log', () => {
  it('gives the lines of the probe and leaves out what is cut off or written by others', () => {
    const whole = JSON.stringify(report(7));
    const text = `${whole.slice(40)}\r\n[    1.0] kernel\r\n{"t":"ready","id":"a"}\r\n${whole}\r\n{"t":"rep${whole}\n${whole}`;
    expect(parseSerial(text).map(({ t }) => t)).toEqual(['ready', 'report']);
    expect(reportsIn(text)).toEqual([report(7)]);
  });

  it('reads a stream whose counts of 0 were left out', () => {
    const written = { ...report(1), streams: [{ to: 2, rtoUs: 204_000, backoff: 1 }] };
    expect(reportsIn(`${JSON.stringify(written)}\n`)).toEqual([
      report(1, { streams: [stream({ backoff: 1 })] }),
    ]);
  });

  it('refuses a report with a field that is unknown or missing', () => {
    const { lost: _lost, ...without } = report(1);
    expect(
      parseSerial(`${JSON.stringify(without)}\n${JSON.stringify({ ...report(1), extra: 1 })}\n`),
    ).toEqual([]);
  });
});
