import type { ClockOffset } from '../clock-offset.ts';

/** The planning of instants: pure, on the controller's clock unless it says otherwise. */

/** A cut further ahead costs nothing but the wait: the VMs run meanwhile. */
export const cutMarginNs = 20_000_000;
/** A resumption further ahead lengthens the pause: as near as the message needs. */
export const resumeMarginNs = 1_500_000;

const longestRoundTripNs = (clocks: readonly ClockOffset[]) =>
  clocks.reduce((longest, { roundTripNs }) => Math.max(longest, roundTripNs), 0);

/** When all hosts cut: late enough that the slowest of them has been told. */
export function planCut(nowNs: bigint, clocks: readonly ClockOffset[]): bigint {
  return nowNs + BigInt(cutMarginNs + 4 * longestRoundTripNs(clocks));
}

/**
 * For how long every VM is stopped, so that all clocks stand still equally long: the VM that stopped first cannot
 * resume before the slowest host has been told.
 * @param stopsNs instants at which VMs stopped; none if all had been paused by their owners
 */
export function planPause(nowNs: bigint, stopsNs: readonly bigint[], clocks: readonly ClockOffset[]): bigint {
  if (stopsNs.length === 0) return 0n;
  const firstStopNs = stopsNs.reduce((first, stop) => (stop < first ? stop : first));
  return nowNs + BigInt(resumeMarginNs + longestRoundTripNs(clocks)) - firstStopNs;
}

export const toHostClock = (instantNs: bigint, clock: ClockOffset) => instantNs + clock.offsetNs;
export const toControllerClock = (instantNs: bigint, clock: ClockOffset) => instantNs - clock.offsetNs;

/** The largest minus the smallest; 0 of nothing. */
export function spreadNs(instants: readonly bigint[]): number {
  if (instants.length === 0) return 0;
  const sorted = [...instants].sort((a, b) => (a < b ? -1 : 1));
  return Number(sorted.at(-1)! - sorted[0]!);
}
