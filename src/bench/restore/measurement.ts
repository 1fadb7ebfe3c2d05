import type { BenchOptions } from '../bench.ts';

/** One way to bring a VM back, timed from the request to the running VM. */
export interface RestoreMeasurement {
  /** As the metric names it. */
  readonly name: string;
  /** In milliseconds; null where it is only measured beside the others. */
  readonly limitMs: number | null;
  /** @returns milliseconds of each round */
  measure(size: RestoreSize, options: BenchOptions): Promise<number[]>;
}

export interface RestoreSize {
  readonly memoryMiB: number;
  readonly rounds: number;
}
