import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';

import { messageOf, StaghornError } from '../errors/index.ts';
import { readSwitchPorts } from '../network/switches/ports.ts';
import {
  switchFilesOf,
  type HostManifest,
  type StoredFile,
  type StoredRam,
  type StoredVm,
} from '../store/manifest.ts';
import { findImageDamage, findStoredDamage, ramFileOf } from '../store/ram-image.ts';
import { ramsOf } from '../store/ram-parent.ts';
import { checkFile, SnapshotStore } from '../store/snapshot-directory.ts';

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
  const ramDamage = await Promise.all(ramsOf(vm).map((ram) => imageObstacle(ram, directory, signal)));
  const ofRam = ramDamage.flatMap((problem) => (problem === null ? [] : [`VM ${vm.name}: ${problem}`]));
  return [...ofRam, ...(await smallFileDamage(vm, directory, signal))];
}

/** Layered RAM is put together here: a missing layer or a full disk shows before anything that runs is touched. */
async function imageObstacle(ram: StoredRam, directory: string, signal: AbortSignal): Promise<string | null> {
  try {
    const places = ram.places === null ? null : await checkFile(directory, ram.places, signal);
    if (places !== null) return places;
    const { size } = await stat(await ramFileOf(SnapshotStore.containing(directory), directory, ram, signal));
    return size === ram.bytes ? null : `${ram.file} is damaged: ${size} bytes instead of ${ram.bytes}`;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof StaghornError && error.code !== 'snapshot-damaged') throw error;
    return `${ram.file} is damaged: ${messageOf(error)}`;
  }
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

/** Recomputes the checksums of RAM as it will be mapped. @throws StaghornError 'snapshot-damaged', naming the place */
export async function requireIntactRam(
  manifest: HostManifest,
  directory: string,
  signal: AbortSignal,
): Promise<void> {
  const store = SnapshotStore.containing(directory);
  for (const vm of manifest.vms) {
    for (const ram of ramsOf(vm)) {
      const problem = await findImageDamage(store, directory, ram, signal);
      if (problem === null) continue;
      throw new StaghornError('snapshot-damaged', `VM ${vm.name}: ${problem}`, { context: { vm: vm.name } });
    }
  }
}

/** Everything that a VM's RAM is stored in, read again: in words what differs from what was sealed. */
export async function findRamDamage(directory: string, vm: StoredVm, signal: AbortSignal): Promise<string[]> {
  const problems: (string | null)[] = [];
  for (const ram of ramsOf(vm)) {
    for (const entry of [ram.identities, ram.places]) {
      if (entry !== null) problems.push(await checkFile(directory, entry, signal));
    }
    problems.push(
      await findStoredDamage(SnapshotStore.containing(directory), directory, ram, signal).catch(messageOf),
    );
  }
  signal.throwIfAborted();
  return problems.filter((problem) => problem !== null);
}
