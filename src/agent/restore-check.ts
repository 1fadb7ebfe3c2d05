import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { messageOf, StaghornError } from '../errors/index.ts';
import { verifyRam } from '../native/ram.ts';
import { readSwitchPorts } from '../network/switch-ports.ts';
import type { HostManifest, StoredRam, StoredVm } from '../store/manifest.ts';
import { checkFile } from '../store/snapshot-directory.ts';
import { parseChunkChecksums } from './stored-ram.ts';

/**
 * Everything that could keep a snapshot from running on this host, found before anything that runs is touched.
 * @returns problems in words; none if it fits.
 */
export async function findObstacles(
  manifest: HostManifest,
  directory: string,
  signal: AbortSignal,
): Promise<string[]> {
  const bridges = new Set(
    [...(await readSwitchPorts(undefined, signal)).values()].map(({ bridge }) => bridge),
  );
  const perVm = await Promise.all(
    manifest.vms.map(async (vm) => [
      ...(await qemuObstacles(vm, signal)),
      ...(await ramSizeObstacles(vm, directory)),
      ...(await smallFileObstacles(vm, directory, signal)),
      ...bridgeObstacles(vm, bridges),
    ]),
  );
  const { count: _, ...frames } = manifest.frames;
  const damage = await checkFile(directory, frames, signal);
  return [...perVm.flat(), ...(damage === null ? [] : [damage])];
}

async function qemuObstacles(vm: StoredVm, signal: AbortSignal): Promise<string[]> {
  try {
    const { stdout } = await promisify(execFile)(vm.exe, ['--version'], { signal, timeout: 10_000 });
    const version = /version (\d+\.\d+\.\d+)/.exec(stdout)?.[1];
    if (version === vm.qemuVersion) return [];
    return [
      `VM ${vm.name}: saved by QEMU ${vm.qemuVersion}, and ${vm.exe} is version ${version ?? 'unknown'}`,
    ];
  } catch (error) {
    signal.throwIfAborted();
    return [`VM ${vm.name}: its QEMU ${vm.exe} does not run here: ${messageOf(error)}`];
  }
}

async function ramSizeObstacles(vm: StoredVm, directory: string): Promise<string[]> {
  const size = await stat(join(directory, vm.ram.file)).then(({ size }) => size, messageOf);
  if (size === vm.ram.bytes) return [];
  return [
    `VM ${vm.name}: ${vm.ram.file} is damaged: ${typeof size === 'string' ? size : `${size} bytes instead of ${vm.ram.bytes}`}`,
  ];
}

async function smallFileObstacles(vm: StoredVm, directory: string, signal: AbortSignal): Promise<string[]> {
  const checks = await Promise.all(
    [vm.state, ...vm.blocks.map(({ name: _, ...file }) => file)].map((file) =>
      checkFile(directory, file, signal),
    ),
  );
  return checks.flatMap((problem) => (problem === null ? [] : [`VM ${vm.name}: ${problem}`]));
}

function bridgeObstacles(vm: StoredVm, bridges: ReadonlySet<string>): string[] {
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
