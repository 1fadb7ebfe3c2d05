import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface TapDescriptor {
  readonly fd: number;
  readonly tap: string;
}

/**
 * The descriptors of a process that are tap devices: the kernel names the interface in fdinfo (drivers/net/tun.c), but
 * for a queue that the guest has switched off. QEMU opens all queues of a tap in a row, and uses the first one always
 * (net_init_tap in its net/tap.c).
 */
export function readTapDescriptors(pid: number): TapDescriptor[] {
  const found: TapDescriptor[] = [];
  for (const { fd, target } of readDescriptors(pid)) {
    if (target !== '/dev/net/tun') continue;
    const info = orNothing(() => readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'), '');
    const tap = /^iff:[^\S\n]*(\S+)/m.exec(info)?.[1] ?? found.at(-1)?.tap;
    if (tap !== undefined) found.push({ fd, tap });
  }
  return found;
}

/** Whether the kernel (vhost-net) moves this VM's frames instead of QEMU. */
export function usesVhost(pid: number): boolean {
  return readDescriptors(pid).some(({ target }) => target === '/dev/vhost-net');
}

// The kernel answers from memory: to have a thread wait for each of many links would take a hundred times as long.
function readDescriptors(pid: number): { fd: number; target: string }[] {
  const directory = `/proc/${pid}/fd`;
  return orNothing(() => readdirSync(directory), [])
    .map((name) => ({
      fd: Number(name),
      target: orNothing(() => readlinkSync(`${directory}/${name}`), ''),
    }))
    .sort((a, b) => a.fd - b.fd);
}

/** A descriptor may be closed, or its process end, while it is looked at. */
function orNothing<T>(read: () => T, nothing: T): T {
  try {
    return read();
  } catch {
    return nothing;
  }
}
