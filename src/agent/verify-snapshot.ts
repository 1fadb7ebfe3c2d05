import { messageOf } from '../errors/index.ts';
import type { AgentResult } from '../protocol/rpc.ts';
import { checkFile, type SnapshotStore } from '../store/snapshot-directory.ts';
import { switchFilesOf, type HostManifest } from '../store/manifest.ts';
import { findDiskDamage } from '../vmm/disks/restored-disks.ts';
import { findRamDamage } from './restore-check.ts';

interface VerifyRequest {
  readonly snapshot: string;
  readonly manifestSha256: string | null;
}

/** Reads a whole snapshot again and compares it with what was sealed. Damage is a result, not an error. */
export async function verifySnapshot(
  store: SnapshotStore,
  { snapshot, manifestSha256 }: VerifyRequest,
  signal: AbortSignal,
): Promise<AgentResult<'verify'>> {
  let manifest: HostManifest;
  try {
    manifest = await store.readManifest(snapshot, manifestSha256);
  } catch (error) {
    return { ok: false, bytes: 0, problems: [messageOf(error)] };
  }
  const directory = store.pathOf(snapshot);
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
    problems.push(await findRamDamage(directory, vm.ram, signal));
    bytes += vm.ram.bytes;
    problems.push(...(await findDiskDamage(vm)));
  }
  const found = problems.filter((problem) => problem !== null);
  return { ok: found.length === 0, bytes, problems: found };
}
