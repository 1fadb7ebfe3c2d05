/** A frame as the reader of a tap got it. */
export interface Arrival {
  /** Place of the tap among those that are read. */
  readonly tap: number;
  /** Counted from 0 on each device. */
  readonly number: number;
  /** On CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  readonly intact: boolean;
}

export interface Faults {
  readonly lost: number;
  readonly duplicated: number;
  readonly reordered: number;
  readonly damaged: number;
}

/** What is wrong with arrivals, in their order, if frames 0 to `sent - 1` were sent to each tap. */
export function faultsOf(arrivals: readonly Arrival[], sent: readonly number[]): Faults {
  const seen = sent.map((count) => new Uint8Array(count));
  const next = sent.map(() => 0);
  let [duplicated, reordered, damaged] = [0, 0, 0];
  for (const { tap, number, intact } of arrivals) {
    const known = seen[tap];
    if (!intact || known === undefined || number >= known.length) {
      damaged++;
      continue;
    }
    if (known[number] === 1) duplicated++;
    else if (number < next[tap]!) reordered++;
    known[number] = 1;
    next[tap] = Math.max(next[tap]!, number + 1);
  }
  const lost = seen.reduce((sum, known) => sum + known.reduce((missing, one) => missing + 1 - one, 0), 0);
  return { lost, duplicated, reordered, damaged };
}
