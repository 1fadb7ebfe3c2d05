import { disturbedStreams, type DisturbedStream } from './judge-streams.ts';
import type { GuestReport } from './report.ts';

/** Counts of a guest that only grow; the probe keeps them from its boot on. */
const COUNTS = [
  'sent',
  'received',
  'lost',
  'duplicated',
  'reordered',
  'corrupted',
  'sendErrors',
  'tcpBytes',
  'tcpMismatches',
  'tcpRetransmissions',
  'tcpTimeouts',
  'tcpFailures',
] as const;
type Counts = Record<(typeof COUNTS)[number], number>;

/** What happened in all guests together between two moments. */
export interface Judgement extends Counts {
  readonly guests: number;
  /** Datagrams sent and by the last reports neither received nor judged lost: in flight, or within the window of 32. */
  readonly pending: number;
  /** The largest gap between two wake-ups of a probe that ended between the moments, and before the first of them. */
  readonly largestGapNs: number;
  readonly largestGapBeforeNs: number;
  /** The largest steps of a clock that showed after the first moment; 0 if none was larger than before it. */
  readonly clockJumpNs: number;
  readonly tscJumpNs: number;
  /** Streams that sent something twice, or were waiting for a timeout. */
  readonly disturbedStreams: readonly DisturbedStream[];
}

/** A moment on a guest's own clock, as it stands in one of its reports. */
export interface JudgedGuest {
  /** All reports of the guest along its own time line, in order (`readReports`). */
  readonly reports: readonly GuestReport[];
  /** CLOCK_MONOTONIC of the guest: the window is from the last report not after `fromNs` … */
  readonly fromNs: number;
  /** … to the last report not after `toNs` (left out: to the last one there is). */
  readonly toNs?: number;
}

function largest(values: readonly number[]): number {
  return values.reduce((most, value) => Math.max(most, value), 0);
}

interface Window {
  readonly before: readonly GuestReport[];
  readonly first: GuestReport;
  readonly inside: readonly GuestReport[];
  readonly last: GuestReport;
}

/**
 * A report without `ready` belongs to the boot, which is not judged. Time lines only go forward: a report that is
 * older than the one before it means that a log was not cut where its guest was restored, and nothing could be told.
 */
function windowOf({ reports, fromNs, toNs = Infinity }: JudgedGuest): Window {
  const judged = reports.filter(({ ready }) => ready);
  judged.forEach((report, index) => {
    const previous = judged[index - 1];
    if (previous !== undefined && report.uptimeNs <= previous.uptimeNs)
      throw new Error(
        `the reports of guest "${report.id}" go back in time: its log must be cut at the restore`,
      );
  });
  const before = judged.filter(({ uptimeNs }) => uptimeNs <= fromNs);
  const inside = judged.filter(({ uptimeNs }) => uptimeNs > fromNs && uptimeNs <= toNs);
  const first = before.at(-1) ?? inside[0];
  const last = inside.at(-1) ?? first;
  if (first === undefined || last === undefined)
    throw new Error('there is no report of a ready guest to judge');
  return { before, first, inside, last };
}

/** Only a jump that exceeds the largest one so far shows in the counts; smaller ones are no worse than what was. */
function grown(window: Window, key: 'clockJumpNs' | 'tscJumpNs'): number {
  return window.last[key] > window.first[key] ? window.last[key] : 0;
}

/**
 * Sums up over all guests what happened between two moments.
 * Differences of what the guests counted, so that nothing of the boot shows. A frame in flight at the end is not lost:
 * the receiver judges a number lost only when 32 later ones of the same sender have come in.
 */
export function judge(guests: readonly JudgedGuest[]): Judgement {
  const windows = guests.map(windowOf);
  const sum = (count: (window: Window) => number): number =>
    windows.reduce((total, window) => total + count(window), 0);
  const counts = Object.fromEntries(
    COUNTS.map((key) => [key, sum(({ first, last }) => last[key] - first[key])]),
  ) as Counts;
  return {
    ...counts,
    guests: windows.length,
    pending: sum(({ last }) => last.sent - last.received - last.lost),
    largestGapNs: largest(windows.flatMap(({ inside }) => inside.map(({ gapNs }) => gapNs))),
    largestGapBeforeNs: largest(windows.flatMap(({ before }) => before.map(({ gapNs }) => gapNs))),
    clockJumpNs: largest(windows.map((window) => grown(window, 'clockJumpNs'))),
    tscJumpNs: largest(windows.map((window) => grown(window, 'tscJumpNs'))),
    disturbedStreams: windows.flatMap(({ first, inside }) => disturbedStreams(first, inside)),
  };
}

/**
 * Whether nothing was lost, duplicated, reordered or damaged, no TCP had to send anything twice or ran into a timeout,
 * and something was received at all.
 */
export function isFlawless(judgement: Judgement): boolean {
  const { lost, duplicated, reordered, corrupted, received } = judgement;
  const { tcpMismatches, tcpFailures, tcpRetransmissions, tcpTimeouts } = judgement;
  const datagrams = lost + duplicated + reordered + corrupted;
  const streams = tcpMismatches + tcpFailures + tcpRetransmissions + tcpTimeouts;
  return received > 0 && datagrams + streams + judgement.disturbedStreams.length === 0;
}
