const NS_PER_SECOND = 1_000_000_000n;
const MICROSECONDS = 6;

/** Turns an interface's ticks into nanoseconds by its if_tsresol and if_tsoffset (draft-ietf-opsawg-pcapng, section 4.2). */
export class TickClock {
  readonly #ticksPerSecond: bigint;
  readonly #offsetNs: bigint;

  /** @param resolution a power of ten, or of two if its highest bit is set, negated; microseconds if left out. */
  constructor(resolution: number = MICROSECONDS, offsetSeconds = 0n) {
    const base = (resolution & 0x80) === 0 ? 10n : 2n;
    this.#ticksPerSecond = base ** BigInt(resolution & 0x7f);
    this.#offsetNs = offsetSeconds * NS_PER_SECOND;
  }

  /** Rounded down. */
  toNs(ticks: bigint): bigint {
    return (ticks * NS_PER_SECOND) / this.#ticksPerSecond + this.#offsetNs;
  }
}
