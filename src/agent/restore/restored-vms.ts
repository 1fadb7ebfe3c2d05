import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { allOf, StaghornError } from '../../errors/index.ts';
import { writeMemory } from '../../native/ram.ts';
import type { FlowMemory } from '../../network/switches/flow-memory.ts';
import type { SpareGate } from '../../network/spare-gate.ts';
import { ReceiveBuffers } from '../../network/switches/receive-buffers.ts';
import { VmPorts } from '../../network/vm-ports.ts';
import type { HostManifest, StoredRam, StoredVm } from '../../store/manifest.ts';
import { ramFileOf } from '../../store/ram-image.ts';
import { SnapshotStore } from '../../store/snapshot-directory.ts';
import { planClockShift, shiftClocks, type ClockShift } from '../../vmm/clock-shift.ts';
import { parseCommandLine } from '../../vmm/command-line.ts';
import { ControlledVm } from '../../vmm/controlled-vm.ts';
import type { DiskDirectory } from '../../vmm/disks/disk-directory.ts';
import { prepareDisks } from '../../vmm/disks/restored-disks.ts';
import { launchPaused, loadDeviceState, type LaunchedVm, type LaunchSpec } from '../../vmm/launch.ts';
import { hiddenTimeEnvironment } from '../../vmm/hidden-time.ts';
import type { LayoutMemory } from '../../vmm/layout-memory.ts';
import { readSurroundings, switchedDevices } from '../host-inventory.ts';
import type { IntactImages } from './intact-images.ts';
import { VmGroup } from '../session/vm-group.ts';

export interface StartedVm {
  readonly stored: StoredVm;
  readonly launched: LaunchedVm;
  /** How far its clocks were moved. */
  readonly clocks: ClockShift;
}

/** What is done about the real time that has passed since the snapshot. */
export interface RestoredTime {
  readonly mode: 'hidden' | 'advance';
  readonly elapsedNs: bigint;
}

export interface StartOptions {
  readonly manifest: HostManifest;
  readonly directory: string;
  readonly runDirectory: string;
  readonly clock: RestoredTime;
  readonly disks: DiskDirectory;
  readonly signal: AbortSignal;
  /** Told at each start, so that a failure of one VM can end the others. */
  readonly onStarted: (vms: readonly StartedVm[]) => void;
}

/** Starts every VM of a snapshot, paused, with RAM and devices as they were. */
export async function startVms(options: StartOptions): Promise<StartedVm[]> {
  const { manifest, directory, runDirectory, clock, disks, signal, onStarted } = options;
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  const started: StartedVm[] = [];
  await allOf(
    manifest.vms.map(async (stored) => {
      const clocks = clocksOf(stored, clock);
      const environment = hiddenTimeEnvironment(hiddenAfter(stored, clock));
      const state = readFile(join(directory, stored.state.file));
      state.catch(() => undefined);
      const prepared = await prepareDisks(stored, disks);
      const placed = { ...stored, args: prepared.args };
      const spec = { ...(await launchSpec(placed, { directory, runDirectory, signal })), environment };
      // A QEMU that answers has its images open, and what none has open is collected.
      const launched = await launchPaused(spec, signal).finally(() => disks.letGo(prepared.overlays));
      started.push({ stored, launched, clocks });
      onStarted(started);
      const shifted = shiftClocks(await state, clocks, parseCommandLine(stored.args));
      await loadDeviceState(launched, spec, shifted);
    }),
  );
  return started;
}

export const clocksOf = ({ hiddenNs }: StoredVm, { mode, elapsedNs }: RestoredTime): ClockShift =>
  planClockShift(mode, { elapsedNs, hiddenNs });

export const hiddenAfter = ({ hiddenNs }: StoredVm, { mode, elapsedNs }: RestoredTime) =>
  mode === 'hidden' ? hiddenNs + elapsedNs : 0n;

export async function launchSpec(
  stored: StoredVm,
  { directory, runDirectory, signal }: Pick<StartOptions, 'directory' | 'runDirectory' | 'signal'>,
): Promise<LaunchSpec> {
  const store = SnapshotStore.containing(directory);
  const imageOf = (ram: StoredRam) => ramFileOf(store, directory, ram, signal);
  const backends = stored.memory.map(async ({ id, device, ram }) => {
    return { id, device, file: await imageOf(ram), bytes: ram.bytes };
  });
  return {
    name: stored.name,
    exe: stored.exe,
    args: stored.args,
    cwd: stored.cwd,
    uid: stored.uid,
    gid: stored.gid,
    qmpSocket: stored.qmpSocket,
    machineType: stored.machineType,
    ramFile: await imageOf(stored.ram),
    ramBytes: stored.ram.bytes,
    backends: await Promise.all(backends),
    logFile: join(runDirectory, `${stored.name}.qemu.log`),
  };
}

/** What a restore leaves for the next one, which saves making it again. */
export interface KeptBetweenRestores {
  readonly gate: SpareGate;
  readonly layouts: LayoutMemory;
  readonly flows: FlowMemory;
  readonly intact: IntactImages;
}

export interface OpenOptions {
  readonly directory: string;
  readonly frameBufferBytes: number;
  readonly kept: KeptBetweenRestores;
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
    await allOf(
      started.map(async ({ stored, launched }, index) => {
        vms[index] = await ControlledVm.overRestored(launched.process, launched, surroundings, {
          resumes: stored.running,
          layout: null,
        });
        options.kept.layouts.remember(launched.process, vms[index].layout);
        await putBackBlocks(stored, vms[index], options.directory);
      }),
    );
    const ports = VmPorts.create({
      ports: VmGroup.portsOf(vms),
      ringBytes: options.frameBufferBytes,
      hold: true,
      spare: options.kept.gate,
    });
    const buffers = await ReceiveBuffers.find(switchedDevices(surroundings));
    group = new VmGroup(vms, ports, null, buffers);
    await options.beforeAttach(group);
    group.attach();
    return group;
  } catch (error) {
    // A descriptor that stays open would keep its tap busy for the next restore. A group is its owner's to close.
    if (group === undefined) await Promise.allSettled(vms.map((vm) => vm.close()));
    throw error;
  }
}

/** Memory that is neither main memory nor in the device state goes straight into the paused QEMU. */
export async function putBackBlocks(stored: StoredVm, vm: ControlledVm, directory: string): Promise<void> {
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
