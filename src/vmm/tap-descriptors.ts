import { readFileSync } from 'node:fs';

import type { OpenDescriptor } from './open-descriptors.ts';

export interface TapDescriptor {
  readonly fd: number;
  readonly tap: string;
}

/**
 * Those of a process's descriptors that are tap devices: the kernel names the interface in fdinfo (drivers/net/tun.c),
 * but for a queue that the guest has switched off. QEMU opens all queues of a tap in a row, and uses the first one
 * always (net_init_tap in its net/tap.c).
 */
export function tapDescriptors(pid: number, descriptors: readonly OpenDescriptor[]): TapDescriptor[] {
  const found: TapDescriptor[] = [];
  for (const { fd, target } of descriptors) {
    if (target !== '/dev/net/tun') continue;
    const tap = /^iff:[^\S\n]*(\S+)/m.exec(infoOf(pid, fd))?.[1] ?? found.at(-1)?.tap;
    if (tap !== undefined) found.push({ fd, tap });
  }
  return found;
}

function infoOf(pid: number, fd: number): string {
  try {
    return readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8');
  } catch {
    return '';
  }
}

/** Whether the kernel (vhost-net) moves this VM's frames instead of QEMU. */
export function usesVhost(descriptors: readonly OpenDescriptor[]): boolean {
  return descriptors.some(({ target }) => target === '/dev/vhost-net');
}
