import { mutualErrorNs, type ClockOffset, type MeasuredClock } from './clock-offset.ts';

/**
 * The offsets of hosts whose clocks are all kept, by what they say of UTC, where that is more exact than the exchanges
 * with them. What an exchange bounds is certain: a host whose word does not agree with it is not kept as it says, and
 * then nobody's word counts.
 */
export function offsetsByUtc(clocks: readonly MeasuredClock[]): readonly ClockOffset[] {
  if (clocks.length < 2) return clocks;
  // Any would do: its offset is the error that all share.
  const anchor = clocks.reduce((best, clock) => (clock.errorNs < best.errorNs ? clock : best));
  const byUtc = clocks.flatMap((clock) => offsetFrom(anchor, clock) ?? []);
  if (byUtc.length < clocks.length) return clocks;
  const { atNs } = anchor;
  return mutualErrorNs(byUtc, atNs) < mutualErrorNs(clocks, atNs) ? byUtc : clocks;
}

/** Null if the host says nothing of UTC, or what cannot be. */
function offsetFrom(anchor: MeasuredClock, { utc, ...clock }: MeasuredClock): ClockOffset | null {
  if (utc === null || anchor.utc === null) return null;
  const offsetNs = anchor.offsetNs + anchor.utc.aheadNs - utc.aheadNs;
  const apartNs = Math.abs(Number(offsetNs - clock.offsetNs));
  if (apartNs > clock.errorNs + anchor.errorNs + utc.errorNs + anchor.utc.errorNs) return null;
  return { ...clock, offsetNs, errorNs: Math.ceil(utc.errorNs), source: 'utc' };
}
