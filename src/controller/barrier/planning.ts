import { cutLeadNs } from '../../protocol/instant.ts';
import { exchangingMax, type ClockOffset } from '../hosts/clock-offset.ts';

/** The planning of instants: pure, on the controller's clock unless it says otherwise. */

/** A cut further ahead costs nothing but the wait: the VMs run meanwhile. Doubled by each attempt. */
export const cutMarginNs = 16_000_000;
/** A resumption further ahead lengthens the pause: as near as the message needs. */
export const resumeMarginNs = 1_500_000;

/** Who takes longer is planned for by a later attempt. */
const tripBoundNs = 1_000_000_000;

const bounded = (tripNs: number) => Math.min(tripBoundNs, tripNs);
const longest = (tripsNs: readonly number[]) => tripsNs.reduce((a, b) => Math.max(a, b), 0);

export interface PlannedCut {
  readonly atNs: bigint;
  /** Hosts that have not agreed by then are too late: what others agreed to can be recalled still. */
  readonly agreedByNs: bigint;
}

/**
 * When all hosts cut: late enough that the slowest of them has been told and has answered, though something delays it,
 * and that everybody can be told otherwise, though something delays that. Should it take longer, the cut is moved.
 * @param attempt counts from 1; each plans further ahead
 */
export function planCut(nowNs: bigint, clocks: readonly ClockOffset[], attempt: number): PlannedCut {
  const marginNs = cutMarginNs * 2 ** (attempt - 1);
  const slowNs = bounded(longest(clocks.map(({ slowRoundTripNs }) => slowRoundTripNs)));
  const turnNs = marginNs / 2 + queueNs(clocks);
  const agreeingNs = turnNs + attempt * slowNs;
  const recallingNs = turnNs + slowNs;
  return {
    atNs: nowNs + cutLeadNs + BigInt(Math.ceil(agreeingNs + recallingNs)),
    agreedByNs: nowNs + BigInt(Math.ceil(agreeingNs)),
  };
}

/**
 * How long the last host waits for its turn when all are spoken to: round trips are measured with `exchangingMax`
 * hosts at once, and the controller is busy with others meanwhile.
 */
function queueNs(clocks: readonly ClockOffset[]): number {
  const sumNs = clocks.reduce((sum, { usualRoundTripNs }) => sum + usualRoundTripNs, 0);
  return bounded((sumNs / clocks.length) * (Math.ceil(clocks.length / exchangingMax) - 1));
}

/**
 * For how long every VM is stopped, so that all clocks stand still equally long: the VM that stopped first cannot
 * resume before the slowest host has been told.
 * @param stopsNs instants at which VMs stopped; none if all had been paused by their owners
 */
export function planPause(nowNs: bigint, stopsNs: readonly bigint[], clocks: readonly ClockOffset[]): bigint {
  if (stopsNs.length === 0) return 0n;
  const firstStopNs = stopsNs.reduce((first, stop) => (stop < first ? stop : first));
  const tripNs = longest(clocks.map(({ roundTripNs }) => roundTripNs));
  return nowNs + BigInt(resumeMarginNs + tripNs) - firstStopNs;
}

export const toHostClock = (instantNs: bigint, clock: ClockOffset) => instantNs + clock.offsetNs;
export const toControllerClock = (instantNs: bigint, clock: ClockOffset) => instantNs - clock.offsetNs;

/** The largest minus the smallest; 0 of nothing. */
export function spreadNs(instants: readonly bigint[]): number {
  if (instants.length === 0) return 0;
  let [first, last] = [instants[0]!, instants[0]!];
  for (const instant of instants) {
    if (instant < first) first = instant;
    if (instant > last) last = instant;
  }
  return Number(last - first);
}
