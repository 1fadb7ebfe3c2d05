import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { packCpio } from '../../src/lab/cpio.ts';
import { modulePath } from './host-kernel.ts';
import type { HostKernel } from './host-kernel.ts';

/** What it takes to mount the machine's files, in the order in which it must be loaded. */
const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'netfs',
  'fscache',
  '9pnet',
  '9pnet_virtio',
  '9p',
  'overlay',
];

/** Busybox, the modules and `init`, which mounts the machine's root and goes on there. */
export async function makeInitialRamDisk(kernel: HostKernel): Promise<Buffer> {
  const file = async (path: string, mode: number, source: string) => ({
    path,
    mode: 0o100000 + mode,
    data: await readFile(source),
  });
  const modules = MODULES.map(async (name, place) =>
    file(`modules/${String(place).padStart(2, '0')}-${name}.ko`, 0o644, await modulePath(kernel, name)),
  );
  return packCpio([
    ...['bin', 'dev', 'lower', 'modules', 'proc', 'root', 'sys', 'upper'].map((path) => ({
      path,
      mode: 0o040755,
    })),
    await file('bin/busybox', 0o755, kernel.busybox),
    await file('init', 0o755, fileURLToPath(new URL('./guest/init', import.meta.url))),
    ...(await Promise.all(modules)),
  ]);
}
