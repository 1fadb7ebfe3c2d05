import { readdirSync, readlinkSync } from 'node:fs';

/** A descriptor of a process and what it leads to, as the kernel names it (proc(5), /proc/PID/fd). */
export interface OpenDescriptor {
  readonly fd: number;
  readonly target: string;
}

/**
 * All descriptors of a process, in order; none of a process that ended. Synchronous: the kernel answers at once, and
 * a thread that asks it for each one takes many times as long.
 */
export function readDescriptors(pid: number): OpenDescriptor[] {
  const directory = `/proc/${pid}/fd`;
  return namesIn(directory)
    .flatMap((name) => {
      const target = targetOf(`${directory}/${name}`);
      return target === null ? [] : [{ fd: Number(name), target }];
    })
    .sort((a, b) => a.fd - b.fd);
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

/** Null: it was closed while it was looked at, or is not ours to read. */
export function targetOf(link: string): string | null {
  try {
    return readlinkSync(link);
  } catch {
    return null;
  }
}
