import { createHash } from 'node:crypto';

import { forkSuffix, forkSuffixPattern } from '../../protocol/fork.ts';
import type { QemuProcess } from '../../vmm/qemu-process.ts';

/** Of a network device, without the terminating zero (IFNAMSIZ in include/uapi/linux/if.h). */
export const longestDeviceName = 15;
const digestLength = 6;

/**
 * The name that a device has in a fork. It depends on nothing but its name and the fork's number, so that whoever knows
 * both finds it. A name that would be too long keeps its beginning, and a digest tells it from its like.
 */
export function placedDevice(name: string, fork: number): string {
  const suffix = forkSuffix(fork);
  if (name.length + suffix.length <= longestDeviceName) return name + suffix;
  const digest = createHash('sha256').update(name).digest('hex').slice(0, digestLength);
  return name.slice(0, longestDeviceName - suffix.length - digestLength) + digest + suffix;
}

/** The number of the fork that a name belongs to; null if to none. */
export function forkOfName(name: string): number | null {
  const digits = forkSuffixPattern.exec(name)?.[1];
  return digits === undefined ? null : Number(digits);
}

/** Whether a VM was started as a part of a fork: its control socket is in its fork's directory. */
export function isVmOfFork({ name, qmpSockets }: Pick<QemuProcess, 'name' | 'qmpSockets'>): boolean {
  const fork = forkOfName(name);
  return fork !== null && qmpSockets.some((path) => path.includes(`/forks/f${fork}/`));
}
