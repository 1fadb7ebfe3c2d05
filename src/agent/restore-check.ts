import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { messageOf, StaghornError } from '../errors/index.ts';
import { verifyRam } from '../native/ram.ts';
import { readSwitchPorts } from '../network/switches/ports.ts';
import {
  switchFilesOf,
  type HostManifest,
  type StoredFile,
  type StoredRam,
  type StoredVm,
} from '../store/manifest.ts';
import { checkFile } from '../store/snapshot-directory.ts';
import { findDiskDamage } from '../vmm/disks/restored-disks.ts';
import { parseChunkChecksums } from './stored-ram.ts';

/** What keeps a snapshot from being restored, in words: its files are not what was sealed, or the host does not fit. */
export interface RestoreObstacles {
  readonly damage: readonly string[];
  readonly misfits: readonly string[];
}

/** Everything that can be found quickly, before anything that runs is touched. */
export async function findObstacles(
  manifest: HostManifest,
  directory: string,
  signal: AbortSignal,
): Promise<RestoreObstacles> {
  const { count: _, ...frames } = manifest.frames;
  const [ports, versions, hostDamage, ...vmDamage] = await Promise.all([
    readSwitchPorts(undefined, signal),
    qemuVersions(manifest.vms, signal),
    filesDamage([frames, ...switchFilesOf(manifest)], directory, signal),
    ...manifest.vms.map((vm) => damageOf(vm, directory, signal)),
  ]);
  // A bridge that the manifest describes is made again.
  const rebuildable = (manifest.switches?.bridges ?? []).map(({ name }) => name);
  const bridges = new Set([...[...ports.values()].map(({ bridge }) => bridge), ...rebuildable]);
  return {
    damage: [...vmDamage.flat(), ...hostDamage],
    misfits: manifest.vms.flatMap((vm) => [...qemuMisfits(vm, versions), ...bridgeMisfits(vm, bridges)]),
  };
}

/** What each QEMU binary says of its version, or why it says nothing; asked once a binary. */
async function qemuVersions(vms: readonly StoredVm[], signal: AbortSignal): Promise<Map<string, string>> {
  const exes = [...new Set(vms.map(({ exe }) => exe))];
  const versions = exes.map(async (exe): Promise<[string, string]> => {
    try {
      const { stdout } = await promisify(execFile)(exe, ['--version'], { signal, timeout: 10_000 });
      return [exe, /version \d+\.\d+\.\d+/.exec(stdout)?.[0] ?? 'of an unknown version'];
    } catch (error) {
      signal.throwIfAborted();
      return [exe, `not one that runs here: ${messageOf(error)}`];
    }
  });
  return new Map(await Promise.all(versions));
}

function qemuMisfits({ name, exe, qemuVersion }: StoredVm, versions: ReadonlyMap<string, string>): string[] {
  const version = versions.get(exe)!;
  return version === `version ${qemuVersion}`
    ? []
    : [`VM ${name}: saved by QEMU ${qemuVersion}, and ${exe} is ${version}`];
}

async function damageOf(vm: StoredVm, directory: string, signal: AbortSignal): Promise<string[]> {
  return [
    ...(await ramSizeDamage(vm, directory)),
    ...(await smallFileDamage(vm, directory, signal)),
    ...(await findDiskDamage(vm)),
  ];
}

async function ramSizeDamage(vm: StoredVm, directory: string): Promise<string[]> {
  const size = await stat(join(directory, vm.ram.file)).then(({ size }) => size, messageOf);
  if (size === vm.ram.bytes) return [];
  const found = typeof size === 'string' ? size : `${size} bytes instead of ${vm.ram.bytes}`;
  return [`VM ${vm.name}: ${vm.ram.file} is damaged: ${found}`];
}

async function smallFileDamage(vm: StoredVm, directory: string, signal: AbortSignal): Promise<string[]> {
  const files = [vm.state, ...vm.blocks.map(({ name: _, ...file }) => file)];
  return (await filesDamage(files, directory, signal)).map((problem) => `VM ${vm.name}: ${problem}`);
}

async function filesDamage(
  files: readonly StoredFile[],
  directory: string,
  signal: AbortSignal,
): Promise<string[]> {
  const checks = await Promise.all(files.map((file) => checkFile(directory, file, signal)));
  return checks.filter((problem) => problem !== null);
}

function bridgeMisfits(vm: StoredVm, bridges: ReadonlySet<string>): string[] {
  return vm.nics.flatMap(({ tap, switchPort }) =>
    switchPort === null || bridges.has(switchPort.bridge)
      ? []
      : [`VM ${vm.name}: bridge ${switchPort.bridge}, which its tap ${tap} was plugged into, does not exist`],
  );
}

/** Recomputes the checksums of RAM. @throws StaghornError 'snapshot-damaged' naming the file and the place. */
export async function requireIntactRam(
  manifest: HostManifest,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  for (const { name, ram } of manifest.vms) {
    const problem = await findRamDamage(directory, ram, signal);
    if (problem !== null)
      throw new StaghornError('snapshot-damaged', `VM ${name}: ${problem}`, { context: { vm: name } });
  }
}

/** Null, or in words where a RAM file differs from its checksums. */
export async function findRamDamage(
  directory: string,
  ram: StoredRam,
  signal: AbortSignal,
): Promise<string | null> {
  const checksums = parseChunkChecksums(ram);
  const result = await verifyRam({ file: join(directory, ram.file), length: ram.bytes, checksums, signal });
  if (result.ok) return null;
  const at = result.firstBadChunk === null ? '' : `, first at byte ${result.firstBadChunk * ram.chunkBytes}`;
  return `${ram.file} does not have the checksums that were sealed${at}`;
}
