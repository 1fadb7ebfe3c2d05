import { loadAddon } from './addon.ts';

interface ProgramStatsAddon {
  enableProgramStats(): number;
  readProgramStats(program: number): ProgramStats;
}

const addon = loadAddon() as ProgramStatsAddon;

/** Run-time statistics of a BPF program (kernel/bpf/syscall.c, bpf_prog_get_stats). */
export interface ProgramStats {
  readonly runs: number;
  /** Of all runs together; reading the clock is part of it. */
  readonly runTimeNs: number;
}

/**
 * Has the kernel take the time of every run of every BPF program, until the returned descriptor is closed
 * (bpf(2), BPF_ENABLE_STATS). Needs CAP_SYS_ADMIN. Throws an error with an errno's `code`.
 */
export function enableProgramStats(): number {
  return addon.enableProgramStats();
}

/** What was counted of a program, given by its descriptor, since it was loaded. */
export function readProgramStats(program: number): ProgramStats {
  return addon.readProgramStats(program);
}
