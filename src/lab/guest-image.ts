import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { StaghornError } from '../errors/index.ts';
import { assetPath } from './asset.ts';
import { run } from './command.ts';
import { packCpio, type CpioEntry } from './cpio.ts';
import { acceptOther, findGuestPackages, unpackPackage, type GuestPackages } from './guest-packages.ts';

export interface GuestImage {
  readonly directory: string;
  readonly kernel: string;
  readonly initrd: string;
}

export const GUEST_CACHE = '/var/cache/staghorn/guest';

/** In the order in which they must be loaded. */
const MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'failover',
  'net_failover',
  'virtio_net',
];
const COMPILER = ['gcc', '-static', '-s', '-O2', '-std=gnu17', '-D_GNU_SOURCE', '-Wall', '-Wextra'];

async function sourceHash(directory: string): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([COMPILER, MODULES]));
  for (const file of (await readdir(directory)).sort())
    hash.update(file).update(await readFile(join(directory, file)));
  return hash.digest('hex').slice(0, 12);
}

async function compileProbe(source: string, output: string, signal: AbortSignal): Promise<Buffer> {
  const files = (await readdir(source))
    .filter((file) => file.endsWith('.c'))
    .map((file) => join(source, file));
  await run([...COMPILER, '-o', output, ...files], { signal });
  return readFile(output);
}

async function modulesOf(kernelFiles: string): Promise<CpioEntry[]> {
  const releases = await readdir(join(kernelFiles, 'lib/modules'));
  const root = join(kernelFiles, 'lib/modules', releases[0] ?? '', 'kernel');
  const all = await readdir(root, { recursive: true });
  return Promise.all(
    MODULES.map(async (name) => {
      const path = all.find((file) => file.endsWith(`/${name}.ko`));
      if (path === undefined) throw new StaghornError('host-unfit', `Debian's kernel has no module ${name}`);
      return { path: `modules/${name}.ko`, mode: 0o100644, data: await readFile(join(root, path)) };
    }),
  );
}

async function build(
  work: string,
  source: string,
  packages: GuestPackages,
  signal: AbortSignal,
): Promise<void> {
  const settings = { cache: join(GUEST_CACHE, 'packages'), signal };
  const kernelFiles = await unpackPackage(packages.kernel, settings);
  const busyboxFiles = await unpackPackage(packages.busybox, settings);
  const directories = ['bin', 'dev', 'modules', 'proc', 'sys'].map((path) => ({ path, mode: 0o040755 }));
  const image = packCpio([
    ...directories,
    { path: 'bin/busybox', mode: 0o100755, data: await readFile(join(busyboxFiles, 'bin/busybox')) },
    { path: 'init', mode: 0o100755, data: await readFile(join(source, 'init')) },
    { path: 'probe', mode: 0o100755, data: await compileProbe(source, join(work, 'probe'), signal) },
    {
      path: 'modules/order',
      mode: 0o100644,
      data: Buffer.from(MODULES.map((name) => `${name}.ko\n`).join('')),
    },
    ...(await modulesOf(kernelFiles)),
  ]);
  await rm(join(work, 'probe'));
  await writeFile(join(work, 'initrd'), image);
  const kernel = (await readdir(join(kernelFiles, 'boot'))).find((file) => file.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new StaghornError('host-unfit', `${packages.kernel.name} holds no kernel`);
  await copyFile(join(kernelFiles, 'boot', kernel), join(work, 'vmlinuz'));
}

function imageIn(directory: string): GuestImage {
  return { directory, kernel: join(directory, 'vmlinuz'), initrd: join(directory, 'initrd') };
}

/** An image of the same sources made with an earlier kernel: what remains where the archive cannot be reached. */
async function anyCached(hash: string): Promise<string | undefined> {
  const names = await readdir(GUEST_CACHE).catch(() => []);
  return names
    .filter((name) => name.endsWith(`-${hash}`))
    .sort()
    .at(-1);
}

/**
 * Kernel and initial RAM disk of the lab's guests, from the cache or made now.
 * @throws StaghornError 'host-unfit' if the packages cannot be had or the probe does not compile; 'cancelled'
 */
export async function prepareGuestImage(signal: AbortSignal): Promise<GuestImage> {
  const source = assetPath('guest/');
  const hash = await sourceHash(source);
  let packages: GuestPackages;
  try {
    packages = await findGuestPackages(signal);
  } catch (error) {
    const cached = await anyCached(hash);
    if (cached === undefined || signal.aborted) throw error;
    return imageIn(join(GUEST_CACHE, cached));
  }
  const target = join(GUEST_CACHE, `${packages.kernel.version.replaceAll(/[^\w.+~-]/g, '_')}-${hash}`);
  if (await stat(target).catch(() => undefined)) return imageIn(target);
  await mkdir(GUEST_CACHE, { recursive: true });
  const work = await mkdtemp(join(GUEST_CACHE, '.building-'));
  try {
    await build(work, source, packages, signal);
    await rename(work, target).catch(acceptOther);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return imageIn(target);
}
