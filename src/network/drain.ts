import { setTimeout as sleep } from 'node:timers/promises';
import { asStaghornError } from '../errors/index.ts';
import { readLinks, readQdiscs } from '../native/netlink.ts';
import { DrainTracker } from './drain-tracker.ts';
import type { Backlog, DrainLimits, DrainReport } from './drain-tracker.ts';

export type { DrainLimits, DrainReport } from './drain-tracker.ts';

export interface DrainOptions extends DrainLimits {
  /** Devices whose queues must run empty: taps, tunnels, the underlay; by ifindex. */
  readonly watched: readonly number[];
  /** Frames that ever came into the gate. */
  readonly arrivals: () => number;
  /** How many markers have not come yet; none are waited for if left out. */
  readonly awaited?: () => number;
  readonly signal: AbortSignal;
}

/** A timer of Node's fires no more often than that. */
const POLL_MS = 1;

/** The queues of the watched devices. One that hangs on a class counts in its parent's backlog already. */
function backlogs(names: ReadonlyMap<number, string>): Backlog[] {
  const found: Backlog[] = [];
  for (const { ifindex, kind, nested, backlogPackets } of readQdiscs()) {
    const link = names.get(ifindex);
    if (link !== undefined && !nested) found.push({ link, qdisc: kind, packets: backlogPackets });
  }
  return found;
}

/**
 * Waits until the host is drained, or until the bound: then the report says that it is not complete. Throws
 * StaghornError "cancelled" on abort, and what rtnetlink throws.
 */
export async function drain({
  watched,
  arrivals,
  awaited = () => 0,
  quietMs,
  boundMs,
  signal,
}: DrainOptions): Promise<DrainReport> {
  const wanted = new Set(watched);
  const names = new Map(
    readLinks()
      .filter(({ ifindex }) => wanted.has(ifindex))
      .map(({ ifindex, name }) => [ifindex, name]),
  );
  const tracker = new DrainTracker({ quietMs, boundMs });
  const look = () =>
    tracker.push({
      atMs: performance.now(),
      // In this order: the frames in front of a marker have arrived by the time that it is seen.
      awaited: awaited(),
      arrivals: arrivals(),
      backlogs: backlogs(names),
    });
  try {
    signal.throwIfAborted();
    while (look() === 'draining') await sleep(POLL_MS, undefined, { signal });
  } catch (error) {
    throw asStaghornError(error, signal.aborted ? 'cancelled' : 'internal', 'draining: ');
  }
  return tracker.report();
}
