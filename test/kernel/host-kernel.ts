import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../../src/lab/command.ts';
import { GUEST_CACHE } from '../../src/lab/guest-image.ts';
import { findGuestPackages, unpackPackage } from '../../src/lab/guest-packages.ts';

export interface HostKernel {
  readonly image: string;
  readonly release: string;
  /** A folder with one subfolder a release, as /lib/modules has them. */
  readonly modules: string;
  readonly busybox: string;
}

/**
 * Debian's own kernel, downloaded and unpacked once, never installed. Unlike the cloud kernel of the lab's guests it has
 * 9p, by which the machine's own files get into the guest.
 */
export async function prepareHostKernel(signal: AbortSignal): Promise<HostKernel> {
  const packages = await findGuestPackages(signal);
  const settings = { cache: join(GUEST_CACHE, 'packages'), signal };
  const files = await unpackPackage(packages.fullKernel, settings);
  const busybox = await unpackPackage(packages.busybox, settings);
  const modules = join(files, 'lib/modules');
  const [release] = await readdir(modules);
  if (release === undefined) throw new Error(`${packages.fullKernel.name} has no modules`);
  const index = await stat(join(modules, release, 'modules.dep')).catch(() => undefined);
  if (index === undefined) await run(['depmod', '--basedir', files, release], { signal });
  return {
    image: join(files, 'boot', `vmlinuz-${release}`),
    release,
    modules,
    busybox: join(busybox, 'bin/busybox'),
  };
}

/** A module's file, by its name. */
export async function modulePath(kernel: HostKernel, name: string): Promise<string> {
  const root = join(kernel.modules, kernel.release, 'kernel');
  const found = (await readdir(root, { recursive: true })).find((file) => file.endsWith(`/${name}.ko`));
  if (found === undefined) throw new Error(`${kernel.release} has no module ${name}`);
  return join(root, found);
}
