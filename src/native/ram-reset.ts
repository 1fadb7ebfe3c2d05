import { loadAddon } from './addon.ts';
import { runJob, type NativeJob } from './job.ts';
import { copyThreads, nativeNiceness } from './ram-threads.ts';

interface NativeReset {
  readonly pid: number;
  readonly address: bigint;
  readonly length: number;
  readonly file: string;
  readonly threads: number;
  readonly niceness: number;
}

const addon = loadAddon() as { startResetRam(options: NativeReset): NativeJob<number> };

/**
 * Makes memory that maps a file privately equal to the file again. The process must not run meanwhile.
 * @returns how many bytes had been written to since, and were put back
 */
export function resetRam(
  options: { pid: number; address: bigint; length: number; file: string },
  signal?: AbortSignal,
): Promise<number> {
  const native = { ...options, threads: copyThreads, niceness: nativeNiceness(0) };
  return runJob(() => addon.startResetRam(native), signal);
}
