/** One measured figure (DESIGN.md, "Benchmarks"). */
export interface BenchResult {
  readonly metric: string;
  readonly value: number;
  readonly unit: string;
  /** What the value should be, in words; null where nothing was asked. */
  readonly goal: string | null;
  readonly met: boolean | null;
  /** What was measured beside it in the same run. */
  readonly reference: string | null;
  /** Every single value behind it, in its unit. */
  readonly samples?: readonly number[];
}

export interface BenchOptions {
  readonly quick: boolean;
  readonly onStep: (text: string) => void;
  readonly signal: AbortSignal;
}

export type Bench = (options: BenchOptions) => Promise<BenchResult[]>;

export interface AtMost {
  readonly metric: string;
  readonly unit: string;
  readonly values: readonly number[];
  readonly limit: number;
}

/** The median of the values against a limit, with their spread beside it. */
export function medianAtMost({ metric, unit, values, limit }: AtMost): BenchResult {
  const value = quantile(values, 0.5);
  const [p10, p90] = [quantile(values, 0.1), quantile(values, 0.9)].map(round);
  return {
    metric,
    value: round(value),
    unit,
    goal: `≤ ${limit}`,
    met: value <= limit,
    reference: `${values.length} values; p10 ${p10}, p90 ${p90}, max ${round(Math.max(...values))}`,
    samples: values,
  };
}

/** By linear interpolation between the two nearest values (Hyndman and Fan 1996, type 7). */
export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  if (sorted.length === 0) throw new RangeError('a quantile of nothing');
  const place = (sorted.length - 1) * q;
  const below = sorted[Math.floor(place)]!;
  return below + (sorted[Math.ceil(place)]! - below) * (place - Math.floor(place));
}

const round = (value: number) => Number(value.toPrecision(4));
