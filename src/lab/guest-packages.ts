import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { StaghornError, messageOf } from '../errors/index.ts';
import { run } from './command.ts';

/** Debian's packages that a guest is made of: downloaded and unpacked, never installed. */
const KERNEL_METAPACKAGE = 'linux-image-cloud-amd64';
/** Larger and slower to boot, with drivers of real network cards. */
const FULL_KERNEL_METAPACKAGE = 'linux-image-amd64';
const BUSYBOX_PACKAGE = 'busybox-static';

export interface PackageVersion {
  readonly name: string;
  readonly version: string;
}

export interface GuestPackages {
  readonly kernel: PackageVersion;
  readonly fullKernel: PackageVersion;
  readonly busybox: PackageVersion;
}

/** A kernel and its version are what its metapackage depends on. */
function kernelIn(stanza: string, metapackage: string): PackageVersion {
  const found = /^Depends: .*?(linux-image-\S+) \(= ([^)]+)\)/m.exec(stanza);
  if (found === null) throw new Error(`apt does not know what ${metapackage} points to`);
  return { name: found[1]!, version: found[2]! };
}

/** One question to apt, because each costs a second. */
async function lookUp(signal: AbortSignal): Promise<GuestPackages> {
  const names = [KERNEL_METAPACKAGE, FULL_KERNEL_METAPACKAGE, BUSYBOX_PACKAGE];
  const text = await run(['apt-cache', 'show', '--no-all-versions', ...names], { signal });
  const stanzas = text.split('\n\n');
  const of = (name: string): string =>
    stanzas.find((stanza) => `\n${stanza}\n`.includes(`\nPackage: ${name}\n`)) ?? '';
  const busybox = /^Version: (.+)$/m.exec(of(BUSYBOX_PACKAGE))?.[1];
  if (busybox === undefined) throw new Error(`apt knows no version of ${BUSYBOX_PACKAGE}`);
  return {
    kernel: kernelIn(of(KERNEL_METAPACKAGE), KERNEL_METAPACKAGE),
    fullKernel: kernelIn(of(FULL_KERNEL_METAPACKAGE), FULL_KERNEL_METAPACKAGE),
    busybox: { name: BUSYBOX_PACKAGE, version: busybox },
  };
}

/**
 * What the packages are at present; asks the archive only if this machine's lists do not tell.
 * @throws StaghornError 'host-unfit'
 */
export async function findGuestPackages(signal: AbortSignal): Promise<GuestPackages> {
  try {
    return await lookUp(signal);
  } catch {
    signal.throwIfAborted();
  }
  try {
    await run(['apt-get', 'update', '-qq'], { signal, timeoutMs: 300_000 });
    return await lookUp(signal);
  } catch (error) {
    throw new StaghornError('host-unfit', `cannot find the guest's packages: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** The package's files below `cache`, unpacked there if they are not yet. */
export async function unpackPackage(
  { name, version }: PackageVersion,
  { cache, signal }: { cache: string; signal: AbortSignal },
): Promise<string> {
  const target = join(cache, `${name}_${version.replaceAll(/[^\w.+~-]/g, '_')}`);
  if (await stat(target).catch(() => undefined)) return target;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, '.unpacking-'));
  try {
    const settings = { cwd: work, signal, timeoutMs: 600_000 };
    await run(
      ['apt-get', '-o', 'APT::Sandbox::User=root', 'download', '-qq', `${name}=${version}`],
      settings,
    );
    const archive = (await readdir(work)).find((file) => file.endsWith('.deb'));
    if (archive === undefined) throw new Error(`apt-get downloaded no ${name}`);
    await run(['dpkg-deb', '-x', join(work, archive), join(work, 'files')], settings);
    await rename(join(work, 'files'), target).catch(acceptOther);
    return target;
  } catch (error) {
    if (signal.aborted) throw new StaghornError('cancelled', 'the download was cancelled');
    throw new StaghornError('host-unfit', `cannot get the package ${name}: ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Somebody else was faster, and what they made is the same. */
export function acceptOther(error: unknown): void {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
}
