/** Where the buckets of the distribution begin, nanoseconds; 28 and 55 are what the Staghorn of 2017 reported. */
const begins = [0, 10, 28, 55, 100, 1_000, 10_000, 100_000, 1_000_000] as const;

export interface Bucket {
  readonly words: string;
  readonly count: number;
}

/** How many values fall between which bounds; empty buckets too. */
export function bucketsOf(values: readonly number[]): Bucket[] {
  return begins.map((begin, index) => {
    const end = begins[index + 1] ?? Infinity;
    const count = values.filter((value) => value >= begin && value < end).length;
    return { words: end === Infinity ? `${begin} ns and more` : `${begin} to ${end} ns`, count };
  });
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
