import { messageOf } from '../../errors/index.ts';
import type { AgentResult } from '../../protocol/rpc.ts';
import { switchFilesOf } from '../../store/manifest.ts';
import { ramsOf } from '../../store/ram-parent.ts';
import { checkFile, type SnapshotStore, type StoredPart } from '../../store/snapshot-directory.ts';
import { findDiskDamage } from '../../vmm/disks/restored-disks.ts';
import { findRamDamage } from '../restore/restore-check.ts';
import { findUnloadable } from './trial-load.ts';

interface VerifyRequest {
  readonly snapshot: string;
  readonly manifestSha256: string | null;
}

/**
 * Reads a whole snapshot again, compares it with what was sealed, and tries whether QEMU loads it. Damage is a result,
 * not an error.
 */
export async function verifySnapshot(
  store: SnapshotStore,
  { snapshot, manifestSha256 }: VerifyRequest,
  signal: AbortSignal,
): Promise<AgentResult<'verify'>> {
  let part: StoredPart;
  try {
    part = await store.open(snapshot, manifestSha256);
  } catch (error) {
    return { ok: false, bytes: 0, problems: [messageOf(error)] };
  }
  const { bytes, problems } = await findPartDamage(part, signal);
  // What is damaged is not given to a QEMU.
  if (problems.length === 0) problems.push(...(await findUnloadable(part, signal)));
  return { ok: problems.length === 0, bytes, problems };
}

export interface PartDamage {
  /** Bytes that were checked. */
  readonly bytes: number;
  /** In words; empty if all is as it was sealed. */
  readonly problems: string[];
}

/** Recomputes every checksum of a part, wherever it lies. */
export async function findPartDamage(
  { manifest, directory }: StoredPart,
  signal: AbortSignal = new AbortController().signal,
): Promise<PartDamage> {
  const { count: _, ...frames } = manifest.frames;
  const problems = [await checkFile(directory, frames, signal)];
  let bytes = frames.bytes;
  for (const file of switchFilesOf(manifest)) {
    problems.push(await checkFile(directory, file, signal));
    bytes += file.bytes;
  }
  for (const vm of manifest.vms) {
    for (const { name: _name, ...file } of [{ name: 'state', ...vm.state }, ...vm.blocks]) {
      problems.push(await checkFile(directory, file, signal));
      bytes += file.bytes;
    }
    problems.push(...(await findRamDamage(directory, vm, signal)));
    bytes += ramsOf(vm).reduce((sum, ram) => sum + ram.bytes, 0);
    problems.push(...(await findDiskDamage(vm)));
  }
  return { bytes, problems: problems.filter((problem) => problem !== null) };
}
