import { setTimeout as sleep } from 'node:timers/promises';
import { asStaghornError } from '../errors/index.ts';
import { readLinks, readQdiscs } from '../native/netlink.ts';
import { DrainTracker } from './drain-tracker.ts';
import type { Backlog, DrainLimits, DrainReport, DrainSample } from './drain-tracker.ts';

export type { DrainLimits, DrainReport, DrainSample } from './drain-tracker.ts';

export interface DrainOptions extends DrainLimits {
  /** Devices whose queues must run empty: taps, tunnels, the underlay; by ifindex. */
  readonly watched: readonly number[];
  /** Frames that ever came into the gate. */
  readonly arrivals: () => number;
  /** How many markers have not come yet; none are waited for if left out. */
  readonly awaited?: () => number;
  readonly signal: AbortSignal;
  /** An earlier look at the same: what has not moved since then was quiet for so long. */
  readonly since?: DrainSample | undefined;
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

function namesOf(watched: readonly number[]): Map<number, string> {
  const wanted = new Set(watched);
  return new Map(
    readLinks()
      .filter(({ ifindex }) => wanted.has(ifindex))
      .map(({ ifindex, name }) => [ifindex, name]),
  );
}

function sample(names: ReadonlyMap<number, string>, arrivals: () => number): Omit<DrainSample, 'awaited'> {
  return { atMs: performance.now(), arrivals: arrivals(), backlogs: backlogs(names) };
}

/** One look at devices' queues and at what came into a gate, for a drain that begins later. */
export function lookAtQueues(watched: readonly number[], arrivals: () => number): DrainSample {
  return { awaited: 0, ...sample(namesOf(watched), arrivals) };
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
  since,
}: DrainOptions): Promise<DrainReport> {
  const names = namesOf(watched);
  const tracker = new DrainTracker({ quietMs, boundMs });
  // In this order: the frames in front of a marker have arrived by the time that it is seen.
  const look = () => tracker.push({ awaited: awaited(), ...sample(names, arrivals) });
  // Where frames waited then, nobody knows when the last of them moved.
  if (since?.backlogs.every(({ packets }) => packets === 0) === true) tracker.push(since);
  try {
    signal.throwIfAborted();
    while (look() === 'draining') await sleep(POLL_MS, undefined, { signal });
  } catch (error) {
    throw asStaghornError(error, signal.aborted ? 'cancelled' : 'internal', 'draining: ');
  }
  return tracker.report();
}
