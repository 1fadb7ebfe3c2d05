import type { SnapshotHost } from '../../protocol/resources.ts';
import type { UtcReading } from '../../protocol/rpc.ts';

/** What is known of a host's clock against the controller's, both CLOCK_MONOTONIC. */
export interface ClockOffset {
  /** Host minus controller, nanoseconds. */
  readonly offsetNs: bigint;
  /**
   * The true offset lies within this of `offsetNs` at `atNs`, an instant of the controller's clock. By UTC: but for an
   * error that all hosts share, which does not show between them.
   */
  readonly errorNs: number;
  /** By exchanges with the host alone, or by what it says of UTC. */
  readonly source: SnapshotHost['clockSource'];
  readonly atNs: bigint;
  /** The shortest round trip of the newest ones, their median, and one that few are longer than. */
  readonly roundTripNs: number;
  readonly usualRoundTripNs: number;
  readonly slowRoundTripNs: number;
}

/** With what the host has said of UTC last, its error as of `atNs`. */
export interface MeasuredClock extends ClockOffset {
  readonly utc: UtcReading | null;
}

export interface ClockExchange {
  readonly sentAtNs: bigint;
  readonly hostNs: bigint;
  readonly receivedAtNs: bigint;
  readonly utc?: UtcReading | null;
}

/**
 * How fast two clocks may part at most: a quartz is allowed 100 ppm, and a host has one, the controller another
 * (ntp_adjtime(2) slews faster only while a clock is being set right).
 */
export const driftPpm = 200;
/** How many exchanges are remembered: with one each `clockRefreshMs`, the last minute. */
const remembered = 8;
/** Of 8 the second longest: one alone that something delayed tells little of the next. */
const slowQuantile = 0.85;
/** An exchange is quick that takes no longer than this times the shortest of at least so many before. */
const quickRatio = 1.3;
const comparedMin = 3;
/** With so many hosts there are exchanges at once: more would measure how long they wait for each other. */
export const exchangingMax = 64;

const driftNs = (apartNs: bigint) => Math.ceil((Math.abs(Number(apartNs)) * driftPpm) / 1e6);
const tripNs = ({ sentAtNs, receivedAtNs }: ClockExchange) => receivedAtNs - sentAtNs;

/** Of one exchange, as known now: the host read its clock somewhere between sending and receiving, and has drifted since. */
function boundNs(exchange: ClockExchange, nowNs: bigint): number {
  return Math.ceil(Number(tripNs(exchange)) / 2) + driftNs(nowNs - exchange.receivedAtNs);
}

/**
 * The offset from the exchange that bounds it best: half the round trip, and what the clocks may have drifted since
 * (RFC 5905, clock filter; Cristian 1989).
 */
export function clockOffset(
  exchanges: readonly ClockExchange[],
  nowNs: bigint,
  newest: number = exchanges.length,
): ClockOffset {
  const best = exchanges.reduce((a, b) => (boundNs(b, nowNs) < boundNs(a, nowNs) ? b : a));
  const trips = exchanges
    .slice(-newest)
    .map((exchange) => Number(tripNs(exchange)))
    .sort((a, b) => a - b);
  return {
    offsetNs: best.hostNs - (best.sentAtNs + best.receivedAtNs) / 2n,
    errorNs: boundNs(best, nowNs),
    source: 'exchanges',
    atNs: nowNs,
    roundTripNs: trips[0]!,
    usualRoundTripNs: trips[Math.floor((trips.length - 1) / 2)]!,
    slowRoundTripNs: trips[Math.floor(trips.length * slowQuantile)]!,
  };
}

/**
 * How many exchanges with each host there are before a barrier: many, for one that nothing delayed; where hosts are
 * very many, one beside those that are remembered, since all delay each other.
 */
export function exchangesOf(hostCount: number): number {
  return Math.min(5, Math.max(1, Math.floor(1000 / hostCount)));
}

/** An exchange that is older tells little of how long a message takes. */
const freshNs = 15_000_000_000;

/** The newest exchanges with one host. */
export class HostClock {
  readonly #exchanges: ClockExchange[] = [];

  isFresh(nowNs: bigint): boolean {
    const last = this.#exchanges.at(-1);
    return last !== undefined && nowNs - last.receivedAtNs <= freshNs;
  }

  add(exchange: ClockExchange): void {
    this.#exchanges.push(exchange);
    if (this.#exchanges.length > remembered) this.#exchanges.shift();
  }

  /** Whether the newest exchange was about as quick as the best one: then more of them would hardly tell more. */
  get wasQuick(): boolean {
    const trips = this.#exchanges.map(tripNs);
    const [newest, others] = [trips.at(-1), trips.slice(0, -1)];
    if (newest === undefined || others.length < comparedMin) return false;
    const best = others.reduce((a, b) => (b < a ? b : a));
    return Number(newest) <= Number(best) * quickRatio;
  }

  /** @param newest of so many exchanges the round trips count: older ones had other work beside them */
  at(nowNs: bigint, newest: number = this.#exchanges.length): MeasuredClock {
    return { ...clockOffset(this.#exchanges, nowNs, newest), utc: this.#utcAt(nowNs) };
  }

  /** Only the newest counts: a clock that nobody keeps any more, or that was set, has said so by then. */
  #utcAt(nowNs: bigint): UtcReading | null {
    const { utc = null, receivedAtNs } = this.#exchanges.at(-1)!;
    return utc === null ? null : { ...utc, errorNs: utc.errorNs + driftNs(nowNs - receivedAtNs) };
  }
}

/** The bound at another instant: the clocks drift on. */
export function errorNsAt({ errorNs, atNs }: ClockOffset, instantNs: bigint): number {
  return errorNs + driftNs(instantNs - atNs);
}

/**
 * How well two hosts' clocks are known against each other: both errors may be there at once, in opposite directions.
 * Nothing of one host alone depends on an offset.
 */
export function mutualErrorNs(clocks: readonly ClockOffset[], instantNs: bigint): number {
  if (clocks.length < 2) return 0;
  const errors = clocks.map((clock) => errorNsAt(clock, instantNs));
  const [worst = 0, second = 0] = errors.sort((a, b) => b - a);
  return worst + second;
}
