import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { StaghornError } from '../errors/index.ts';
import { assetPath } from './asset.ts';
import { run } from './command.ts';
import { packCpio, type CpioEntry } from './cpio.ts';
import {
  acceptOther,
  findGuestPackages,
  unpackPackage,
  type GuestPackages,
  type PackageVersion,
} from './guest-packages.ts';
import type { GuestKernel } from './plan.ts';

export interface GuestImage {
  readonly directory: string;
  readonly kernel: string;
  readonly initrd: string;
}

export const GUEST_CACHE = '/var/cache/staghorn/guest';

export type GuestImages = Readonly<Partial<Record<GuestKernel, GuestImage>>> & { readonly cloud: GuestImage };

const VIRTIO_MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'failover',
  'net_failover',
  'virtio_net',
  'virtio_blk',
];
/** In the order in which they must be loaded. */
const modulesFor: Readonly<Record<GuestKernel, readonly string[]>> = {
  cloud: VIRTIO_MODULES,
  full: [...VIRTIO_MODULES, 'e1000', 'mii', '8139cp', 'llc', 'stp', 'garp', 'mrp', '8021q'],
};
const COMPILER = ['gcc', '-static', '-s', '-O2', '-std=gnu17', '-D_GNU_SOURCE', '-Wall', '-Wextra'];

async function sourceHash(directory: string, kernel: GuestKernel): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify([COMPILER, modulesFor[kernel]]));
  for (const file of (await readdir(directory)).sort())
    hash.update(file).update(await readFile(join(directory, file)));
  hash.update(await readFile(assetPath('host/tsc-khz.c')));
  return hash.digest('hex').slice(0, 12);
}

async function compileProbe(source: string, output: string, signal: AbortSignal): Promise<Buffer> {
  const files = (await readdir(source))
    .filter((file) => file.endsWith('.c'))
    .map((file) => join(source, file));
  await run([...COMPILER, '-o', output, ...files], { signal });
  return readFile(output);
}

/** The machine's TSC frequency, which is the guests' too; the same for all guests, so that they do not drift apart. */
export async function measureTscKhz(image: GuestImage, signal: AbortSignal): Promise<number> {
  const khz = Number(await run([join(image.directory, 'tsc-khz')], { signal }));
  if (!Number.isSafeInteger(khz) || khz <= 0)
    throw new StaghornError('host-unfit', "the machine's TSC does not count");
  return khz;
}

async function modulesOf(kernelFiles: string, names: readonly string[]): Promise<CpioEntry[]> {
  const releases = await readdir(join(kernelFiles, 'lib/modules'));
  const root = join(kernelFiles, 'lib/modules', releases[0] ?? '', 'kernel');
  const all = await readdir(root, { recursive: true });
  return Promise.all(
    names.map(async (name) => {
      const path = all.find((file) => file.endsWith(`/${name}.ko`));
      if (path === undefined) throw new StaghornError('host-unfit', `Debian's kernel has no module ${name}`);
      return { path: `modules/${name}.ko`, mode: 0o100644, data: await readFile(join(root, path)) };
    }),
  );
}

interface Ingredients {
  readonly source: string;
  readonly kernel: PackageVersion;
  readonly busybox: PackageVersion;
  readonly modules: readonly string[];
}

async function build(work: string, ingredients: Ingredients, signal: AbortSignal): Promise<void> {
  const { source, kernel: kernelPackage, busybox, modules } = ingredients;
  const settings = { cache: join(GUEST_CACHE, 'packages'), signal };
  const kernelFiles = await unpackPackage(kernelPackage, settings);
  const busyboxFiles = await unpackPackage(busybox, settings);
  const directories = ['bin', 'dev', 'modules', 'proc', 'sys'].map((path) => ({ path, mode: 0o040755 }));
  const order = Buffer.from(modules.map((name) => `${name}.ko\n`).join(''));
  const image = packCpio([
    ...directories,
    { path: 'bin/busybox', mode: 0o100755, data: await readFile(join(busyboxFiles, 'bin/busybox')) },
    { path: 'init', mode: 0o100755, data: await readFile(join(source, 'init')) },
    { path: 'probe', mode: 0o100755, data: await compileProbe(source, join(work, 'probe'), signal) },
    { path: 'modules/order', mode: 0o100644, data: order },
    ...(await modulesOf(kernelFiles, modules)),
  ]);
  await rm(join(work, 'probe'));
  await run([...COMPILER, '-o', join(work, 'tsc-khz'), assetPath('host/tsc-khz.c')], { signal });
  await writeFile(join(work, 'initrd'), image);
  const kernel = (await readdir(join(kernelFiles, 'boot'))).find((file) => file.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new StaghornError('host-unfit', `${kernelPackage.name} holds no kernel`);
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

async function prepareImage(
  kernel: GuestKernel,
  packages: GuestPackages | StaghornError,
  signal: AbortSignal,
): Promise<GuestImage> {
  const source = assetPath('guest/');
  const hash = await sourceHash(source, kernel);
  if (packages instanceof StaghornError) {
    const cached = await anyCached(hash);
    if (cached === undefined || signal.aborted) throw packages;
    return imageIn(join(GUEST_CACHE, cached));
  }
  const kernelPackage = kernel === 'full' ? packages.fullKernel : packages.kernel;
  const target = join(GUEST_CACHE, `${kernelPackage.version.replaceAll(/[^\w.+~-]/g, '_')}-${hash}`);
  if (await stat(target).catch(() => undefined)) return imageIn(target);
  await mkdir(GUEST_CACHE, { recursive: true });
  const work = await mkdtemp(join(GUEST_CACHE, '.building-'));
  const { busybox } = packages;
  const ingredients = { source, kernel: kernelPackage, busybox, modules: modulesFor[kernel] };
  try {
    await build(work, ingredients, signal);
    await rename(work, target).catch(acceptOther);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return imageIn(target);
}

/**
 * Kernels and initial RAM disks of the lab's guests, from the cache or made now; the kernel for clouds always.
 * @throws StaghornError 'host-unfit' if the packages cannot be had or the probe does not compile; 'cancelled'
 */
export async function prepareGuestImages(
  kernels: readonly GuestKernel[],
  signal: AbortSignal,
): Promise<GuestImages> {
  const packages = await findGuestPackages(signal).catch((error: unknown) => {
    if (error instanceof StaghornError) return error;
    throw error;
  });
  const cloud = await prepareImage('cloud', packages, signal);
  return kernels.includes('full') ? { cloud, full: await prepareImage('full', packages, signal) } : { cloud };
}
