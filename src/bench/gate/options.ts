import type { BenchOptions } from '../bench.ts';
import type { Load } from './load.ts';

export interface GateBenchOptions extends BenchOptions {
  readonly load: Load;
}
