import { readdir, readFile, readlink } from 'node:fs/promises';

export interface TapDescriptor {
  readonly fd: number;
  readonly tap: string;
}

/**
 * The descriptors of a process that are tap devices: the kernel names the interface in fdinfo (drivers/net/tun.c), but
 * for a queue that the guest has switched off. QEMU opens all queues of a tap in a row, and uses the first one always
 * (net_init_tap in its net/tap.c).
 */
export async function readTapDescriptors(pid: number): Promise<TapDescriptor[]> {
  const found: TapDescriptor[] = [];
  for (const { fd, target } of await readDescriptors(pid)) {
    if (target !== '/dev/net/tun') continue;
    const info = await readFile(`/proc/${pid}/fdinfo/${fd}`, 'utf8').catch(() => '');
    const tap = /^iff:[^\S\n]*(\S+)/m.exec(info)?.[1] ?? found.at(-1)?.tap;
    if (tap !== undefined) found.push({ fd, tap });
  }
  return found;
}

/** Whether the kernel (vhost-net) moves this VM's frames instead of QEMU. */
export async function usesVhost(pid: number): Promise<boolean> {
  return (await readDescriptors(pid)).some(({ target }) => target === '/dev/vhost-net');
}

async function readDescriptors(pid: number): Promise<{ fd: number; target: string }[]> {
  const directory = `/proc/${pid}/fd`;
  const names = await readdir(directory).catch(() => []);
  const links = await Promise.all(
    names.map(async (name) => ({
      fd: Number(name),
      target: await readlink(`${directory}/${name}`).catch(() => ''),
    })),
  );
  return links.sort((a, b) => a.fd - b.fd);
}
