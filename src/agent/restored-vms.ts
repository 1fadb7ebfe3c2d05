import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { StaghornError } from '../errors/index.ts';
import { writeMemory } from '../native/ram.ts';
import { VmPorts } from '../network/vm-ports.ts';
import type { HostManifest, StoredVm } from '../store/manifest.ts';
import { ControlledVm } from '../vmm/controlled-vm.ts';
import type { DiskDirectory } from '../vmm/disks/disk-directory.ts';
import { prepareDisks } from '../vmm/disks/restored-disks.ts';
import { launchPaused, loadDeviceState, type LaunchedVm, type LaunchSpec } from '../vmm/launch.ts';
import { readSurroundings } from './host-inventory.ts';
import { VmGroup } from './vm-group.ts';

export interface StartedVm {
  readonly stored: StoredVm;
  readonly launched: LaunchedVm;
}

interface StartOptions {
  readonly manifest: HostManifest;
  readonly directory: string;
  readonly runDirectory: string;
  readonly disks: DiskDirectory;
  readonly signal: AbortSignal;
  /** Told at each start, so that a failure of one VM can end the others. */
  readonly onStarted: (vms: readonly StartedVm[]) => void;
}

/** Starts every VM of a snapshot, paused, with RAM and devices as they were. */
export async function startVms(options: StartOptions): Promise<StartedVm[]> {
  const { manifest, directory, runDirectory, disks, signal, onStarted } = options;
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  const started: StartedVm[] = [];
  const results = await Promise.allSettled(
    manifest.vms.map(async (stored) => {
      const prepared = await prepareDisks(stored, disks);
      const spec = launchSpec({ ...stored, args: prepared.args }, directory, runDirectory);
      // A QEMU that answers has its images open, and what none has open is collected.
      const launched = await launchPaused(spec, signal).finally(() => disks.letGo(prepared.overlays));
      started.push({ stored, launched });
      onStarted(started);
      await loadDeviceState(launched, spec, join(directory, stored.state.file));
    }),
  );
  const failure = results.find((result) => result.status === 'rejected');
  if (failure !== undefined) throw failure.reason;
  return started;
}

function launchSpec(stored: StoredVm, directory: string, runDirectory: string): LaunchSpec {
  return {
    name: stored.name,
    exe: stored.exe,
    args: stored.args,
    cwd: stored.cwd,
    uid: stored.uid,
    gid: stored.gid,
    qmpSocket: stored.qmpSocket,
    ramFile: join(directory, stored.ram.file),
    ramBytes: stored.ram.bytes,
    logFile: join(runDirectory, `${stored.name}.qemu.log`),
  };
}

interface OpenOptions {
  readonly directory: string;
  readonly frameBufferBytes: number;
  /** Called before the gate is on any port. */
  readonly beforeAttach: (group: VmGroup) => Promise<void>;
}

/** Takes control of VMs that were started paused, and closes the gate on their ports. */
export async function openRestoredGroup(
  started: readonly StartedVm[],
  options: OpenOptions,
): Promise<VmGroup> {
  const surroundings = await readSurroundings();
  const vms: ControlledVm[] = [];
  let group: VmGroup | undefined;
  try {
    const results = await Promise.allSettled(
      started.map(async ({ stored, launched }, index) => {
        vms[index] = await ControlledVm.over(launched.process, launched, surroundings, {
          resumes: stored.running,
        });
        await putBackBlocks(stored, vms[index], options.directory);
      }),
    );
    const failure = results.find((result) => result.status === 'rejected');
    if (failure !== undefined) throw failure.reason;
    const ports = VmPorts.create({
      ports: VmGroup.portsOf(vms),
      ringBytes: options.frameBufferBytes,
      hold: true,
    });
    group = new VmGroup(vms, ports);
    await options.beforeAttach(group);
    ports.attach();
    return group;
  } catch (error) {
    // A descriptor that stays open would keep its tap busy for the next restore. A group is its owner's to close.
    if (group === undefined) await Promise.allSettled(vms.map((vm) => vm.close()));
    throw error;
  }
}

/** Memory that is neither main memory nor in the device state goes straight into the paused QEMU. */
async function putBackBlocks(stored: StoredVm, vm: ControlledVm, directory: string): Promise<void> {
  for (const block of stored.blocks) {
    const target = vm.layout.others.find(({ name }) => name === block.name);
    if (target === undefined || target.length !== block.bytes) {
      throw new StaghornError(
        'snapshot-unfit',
        `VM ${stored.name}: its QEMU has no memory block ${block.name} of the same size`,
      );
    }
    const bytes = await readFile(join(directory, block.file));
    writeMemory({ pid: vm.process.pid, address: target.address, bytes });
  }
}
