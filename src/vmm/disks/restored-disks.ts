import type { StoredVm } from '../../store/manifest.ts';
import type { StoredDisk, StoredImage } from '../../store/stored-disks.ts';
import { formatCommandLine, parseCommandLine } from '../command-line.ts';
import type { DiskDirectory } from './disk-directory.ts';
import { findImageDamage } from './image-identity.ts';
import type { BackingImage } from './qcow2.ts';
import { withDisks, type DiskReplacement } from './rewrite.ts';

/** What a restore starts a VM with in place of its stored command line. */
export interface PreparedDisks {
  readonly args: string[];
  /** Held in the directory until the VM has them open. */
  readonly overlays: readonly string[];
}

type WithDisks = Pick<StoredVm, 'name' | 'args' | 'uid' | 'gid' | 'disks'>;

/** Puts each disk of a stored VM on a fresh overlay of its own; what the snapshot names is only read. */
export async function prepareDisks(vm: WithDisks, directory: DiskDirectory): Promise<PreparedDisks> {
  const overlays: string[] = [];
  const replacements: DiskReplacement[] = [];
  try {
    for (const disk of vm.disks) {
      const image = await imageFor(disk, vm, directory);
      if (image !== null && !disk.readOnly) overlays.push(image.path);
      const { kind, name, readOnly } = disk;
      const moved = image !== null && directory.isOurs(image.path);
      replacements.push({ kind, name, readOnly, image, moved });
    }
    const options = withDisks(parseCommandLine(vm.args), replacements);
    return { args: vm.disks.length === 0 ? vm.args : formatCommandLine(options), overlays };
  } catch (error) {
    await directory.remove(overlays);
    throw error;
  }
}

async function imageFor(
  { readOnly, virtualBytes, chain }: StoredDisk,
  { name: vm, uid, gid }: WithDisks,
  directory: DiskDirectory,
): Promise<BackingImage | null> {
  const [top] = chain;
  if (top === undefined) return null;
  if (readOnly) return top;
  const owner = { uid, gid };
  const path = await directory.createOverlay({ vm, owner, virtualBytes, backing: backingOf(chain) });
  return { path, format: 'qcow2' };
}

/** What an overlay's header says of what is below: a path, and where headers further down do not lead on, all of it. */
export function backingOf(chain: readonly StoredImage[]): BackingImage {
  const { path, format } = chain[0]!;
  const last = chain.findLastIndex(({ unlinked }) => unlinked);
  if (last === -1) return { path, format };
  return { path: `json:${JSON.stringify(nodeOf(chain, 0, last))}`, format };
}

function nodeOf(chain: readonly StoredImage[], index: number, last: number): object {
  const { path, format } = chain[index]!;
  return {
    driver: format,
    file: { driver: 'file', filename: path },
    ...(index <= last ? { backing: nodeOf(chain, index + 1, last) } : {}),
  };
}

/** In words, which images are not what the snapshot names. */
export async function findDiskDamage({ name, disks }: Pick<StoredVm, 'name' | 'disks'>): Promise<string[]> {
  const found = await Promise.all(disks.flatMap(({ chain }) => chain.map((image) => findImageDamage(image))));
  return [...new Set(found)].flatMap((problem) => (problem === null ? [] : [`VM ${name}: ${problem}`]));
}
