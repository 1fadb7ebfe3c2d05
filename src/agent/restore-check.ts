import { stat } from 'node:fs/promises';
import { join } from 'node:path';

import { messageOf, StaghornError } from '../errors/index.ts';
import { readLinks } from '../native/netlink.ts';
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
import { qemuFit, type Fit } from '../vmm/qemu-fit.ts';
import type { QemuProbes } from '../vmm/qemu-probe.ts';
import type { QemuProcess } from '../vmm/qemu-process.ts';
import { hostFit } from './host-fit.ts';
import { parseChunkChecksums } from './stored-ram.ts';

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
  readonly probes: QemuProbes;
  readonly signal: AbortSignal;
}

/** Everything that can be found quickly, before anything that runs is touched; all of it at once. */
export async function findObstacles(search: ObstacleSearch): Promise<RestoreObstacles> {
  const { manifest, directory, makesBridges, doomed, signal } = search;
  const { count: _, ...frames } = manifest.frames;
  const [ports, host, qemus, hostDamage, ...vmDamage] = await Promise.all([
    readSwitchPorts(undefined, signal),
    hostFit({ vms: manifest.vms, doomed, links: readLinks() }),
    qemuFits(search),
    filesDamage([frames, ...switchFilesOf(manifest)], directory, signal),
    ...manifest.vms.map((vm) => damageOf(vm, directory, signal)),
  ]);
  const rebuildable = makesBridges ? (manifest.switches?.bridges ?? []).map(({ name }) => name) : [];
  const bridges = new Set([...[...ports.values()].map(({ bridge }) => bridge), ...rebuildable]);
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
  return [...(await ramSizeDamage(vm, directory)), ...(await smallFileDamage(vm, directory, signal))];
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
