import { stat } from 'node:fs/promises';

import { messageOf, StaghornError } from '../../errors/index.ts';
import { readLinks } from '../../native/netlink.ts';
import {
  switchFilesOf,
  type HostManifest,
  type StoredFile,
  type StoredRam,
  type StoredVm,
} from '../../store/manifest.ts';
import { findImageDamage, findStoredDamage, ramFileOf } from '../../store/ram-image.ts';
import { ramsOf } from '../../store/ram-parent.ts';
import { checkFile, SnapshotStore } from '../../store/snapshot-directory.ts';
import { findDiskDamage } from '../../vmm/disks/restored-disks.ts';
import type { HostSurroundings } from '../../vmm/inspect.ts';
import { qemuFit, type Fit } from '../../vmm/qemu-fit.ts';
import type { QemuProbes } from '../../vmm/qemu-probe.ts';
import type { QemuProcess } from '../../vmm/qemu-process.ts';
import { hostFit } from './host-fit.ts';
import type { IntactImages } from './intact-images.ts';

/** What keeps a snapshot from being restored, in words: its files are not what was sealed, or the host does not fit. */
export interface RestoreObstacles extends Fit {
  readonly damage: readonly string[];
}

export interface ObstacleSearch {
  readonly manifest: HostManifest;
  readonly directory: string;
  /** Whether bridges of the snapshot that are gone are made again. */
  readonly makesBridges: boolean;
  /** VMs that would be destroyed. */
  readonly doomed: readonly QemuProcess[];
  /** As it is being read. */
  readonly surroundings: Promise<HostSurroundings>;
  readonly probes: QemuProbes;
  readonly signal: AbortSignal;
}

/** Everything that can be found quickly, before anything that runs is touched; all of it at once. */
export async function findObstacles(search: ObstacleSearch): Promise<RestoreObstacles> {
  const { manifest, directory, makesBridges, doomed, signal } = search;
  const { count: _, ...frames } = manifest.frames;
  const [{ switchPorts }, host, qemus, hostDamage, ...vmDamage] = await Promise.all([
    search.surroundings,
    hostFit({ vms: manifest.vms, doomed, links: readLinks() }),
    qemuFits(search),
    filesDamage([frames, ...switchFilesOf(manifest)], directory, signal),
    ...manifest.vms.map((vm) => damageOf(vm, directory, signal)),
  ]);
  const rebuildable = makesBridges ? (manifest.switches?.bridges ?? []).map(({ name }) => name) : [];
  const bridges = new Set([...[...switchPorts.values()].map(({ bridge }) => bridge), ...rebuildable]);
  const fits: Fit[] = [...qemus, host];
  return {
    damage: [...vmDamage.flat(), ...hostDamage],
    misfits: [
      ...fits.flatMap(({ misfits }) => misfits),
      ...manifest.vms.flatMap((vm) => bridgeMisfits(vm, bridges)),
    ],
    warnings: fits.flatMap(({ warnings }) => warnings),
  };
}

function qemuFits({ manifest, probes, signal }: ObstacleSearch): Promise<Fit[]> {
  return Promise.all(
    manifest.vms.map(async (vm) => qemuFit(vm, await probes.ask(vm.exe, vm.accelerator, signal))),
  );
}

async function damageOf(vm: StoredVm, directory: string, signal: AbortSignal): Promise<string[]> {
  const [ramDamage, fileDamage, diskDamage] = await Promise.all([
    Promise.all(ramsOf(vm).map((ram) => imageObstacle(ram, directory, signal))),
    smallFileDamage(vm, directory, signal),
    findDiskDamage(vm),
  ]);
  const ofRam = ramDamage.flatMap((problem) => (problem === null ? [] : [`VM ${vm.name}: ${problem}`]));
  return [...ofRam, ...fileDamage, ...diskDamage];
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

/** Recomputes the checksums of RAM as it will be mapped, unless that was done. @throws StaghornError 'snapshot-damaged', naming the place */
export async function requireIntactRam(
  manifest: HostManifest,
  directory: string,
  intact: IntactImages,
  signal: AbortSignal,
): Promise<void> {
  const store = SnapshotStore.containing(directory);
  for (const vm of manifest.vms) {
    for (const ram of ramsOf(vm)) {
      const problem = await intact.unlessKnown(
        () => ramFileOf(store, directory, ram, signal),
        () => findImageDamage(store, directory, ram, signal),
      );
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
