/** What is known of a host's clock against the controller's, both CLOCK_MONOTONIC. */
export interface ClockOffset {
  /** Host minus controller, nanoseconds. */
  readonly offsetNs: bigint;
  /** The true offset lies within this of `offsetNs`. */
  readonly errorNs: number;
  /** The shortest round trip seen. */
  readonly roundTripNs: number;
}

export interface ClockExchange {
  readonly sentAtNs: bigint;
  readonly hostNs: bigint;
  readonly receivedAtNs: bigint;
}

/**
 * The offset from the exchange with the shortest round trip: the host read its clock somewhere between sending and
 * receiving, so half the round trip bounds the error (RFC 5905, clock filter; Cristian 1989).
 */
export function clockOffset(exchanges: readonly ClockExchange[]): ClockOffset {
  const trip = ({ sentAtNs, receivedAtNs }: ClockExchange) => receivedAtNs - sentAtNs;
  const best = exchanges.reduce((a, b) => (trip(b) < trip(a) ? b : a));
  return {
    offsetNs: best.hostNs - (best.sentAtNs + best.receivedAtNs) / 2n,
    errorNs: Number(trip(best) / 2n),
    roundTripNs: Number(trip(best)),
  };
}
