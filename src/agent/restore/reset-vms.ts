import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { allOf, StaghornError } from '../../errors/index.ts';
import { resetRam } from '../../native/ram-reset.ts';
import { readTapFrames, tapRingIsEmpty } from '../../native/tap.ts';
import { ReceiveBuffers } from '../../network/switches/receive-buffers.ts';
import { VmPorts } from '../../network/vm-ports.ts';
import type { StoredVm } from '../../store/manifest.ts';
import { shiftClocks } from '../../vmm/clock-shift.ts';
import { connectQmp } from '../../vmm/connect-qmp.ts';
import { ControlledVm } from '../../vmm/controlled-vm.ts';
import { setHiddenNs } from '../../vmm/hidden-time.ts';
import type { LaunchSpec } from '../../vmm/launch.ts';
import { StateInPlace } from '../../vmm/load-in-place.ts';
import type { QemuProcess } from '../../vmm/qemu-process.ts';
import { canBeReset, isWhatWouldBeStarted, pluggedDevices } from '../../vmm/reset-fit.ts';
import { switchedDevices, type HostNetwork } from '../host-inventory.ts';
import {
  clocksOf,
  hiddenAfter,
  launchSpec,
  putBackBlocks,
  type OpenOptions,
  type StartedVm,
  type StartOptions,
} from './restored-vms.ts';
import { VmGroup } from '../session/vm-group.ts';

/** A VM that runs, and what it is to be put back to. */
interface Target {
  readonly process: QemuProcess;
  readonly stored: StoredVm;
  readonly spec: LaunchSpec;
  readonly state: Buffer;
}

/** One under control, with the state that its QEMU has been handed. */
interface OpenedVm {
  readonly vm: ControlledVm;
  readonly state: StateInPlace;
  readonly fits: boolean;
}

export interface ResetOptions extends Omit<StartOptions, 'disks' | 'onStarted'>, OpenOptions {
  readonly running: readonly QemuProcess[];
  readonly surroundings: HostNetwork;
}

/**
 * VMs that are put back without ending their QEMUs: each runs, and is what a restore would start. All of a host or
 * none. Nothing is done to them before `run`.
 */
export class VmReset {
  readonly #options: ResetOptions;
  readonly #targets: readonly Target[];
  readonly #opened: readonly OpenedVm[];

  private constructor(options: ResetOptions, targets: readonly Target[], opened: readonly OpenedVm[]) {
    this.#options = options;
    this.#targets = targets;
    this.#opened = opened;
  }

  /** @returns null if any of them has to be started again */
  static async plan(options: ResetOptions): Promise<VmReset | null> {
    const targets = await findTargets(options);
    if (targets === null) return null;
    const results = await Promise.allSettled(targets.map((target) => openTarget(target, options)));
    const opened = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    if (opened.length === targets.length && opened.every(({ fits }) => fits))
      return new VmReset(options, targets, opened);
    // Whatever is unusual about them, they can be started again.
    await Promise.allSettled(opened.map(({ vm }) => vm.close()));
    return null;
  }

  get #vms(): ControlledVm[] {
    return this.#opened.map(({ vm }) => vm);
  }

  get started(): StartedVm[] {
    const { clock } = this.#options;
    return this.#targets.map(({ process, stored }, index) => {
      const { qmp, vm } = this.#opened[index]!.vm;
      return { stored, launched: { process, qmp, path: vm.qmpSocket! }, clocks: clocksOf(stored, clock) };
    });
  }

  /**
   * Closes the gate, stops the VMs and puts them back; they stay paused.
   * @param beside what is done meanwhile, once they stand still
   * @throws if any step fails; nothing of the group is left open, and its VMs are to be ended
   */
  async run(beside: () => Promise<void>): Promise<VmGroup> {
    const { frameBufferBytes, kept, surroundings, beforeAttach, signal } = this.#options;
    let group: VmGroup | undefined;
    try {
      const ports = VmPorts.create({
        ports: VmGroup.portsOf(this.#vms),
        ringBytes: frameBufferBytes,
        hold: true,
        spare: kept.gate,
      });
      const buffers = await ReceiveBuffers.find(switchedDevices(surroundings));
      group = new VmGroup(this.#vms, ports, null, buffers);
      await beforeAttach(group);
      group.attach();
      // None may work on when the group is closed.
      await allOf(this.#vms.map((vm) => stopWithEmptyRings(vm)));
      const puttingBack = this.#opened.map((opened, index) => this.#putBack(opened, this.#targets[index]!));
      await allOf([...puttingBack, beside()]);
      signal.throwIfAborted();
      return group;
    } catch (error) {
      if (group === undefined) await Promise.allSettled(this.#vms.map((vm) => vm.close()));
      else await group.close();
      throw error;
    }
  }

  async #putBack({ vm, state }: OpenedVm, { stored, spec }: Target): Promise<void> {
    const { directory, clock, signal } = this.#options;
    const { pid } = vm.process;
    if (!setHiddenNs(pid, hiddenAfter(stored, clock)))
      throw new StaghornError('vm-unfit', `VM ${vm.name} has no room for the time that is hidden from it`);
    const { address, length } = vm.layout.main;
    await resetRam({ pid, address, length, file: spec.ramFile }, signal);
    await state.load();
    await putBackBlocks(stored, vm, directory);
  }
}

/**
 * Takes control, asks whether it can be put back, and hands the state over, all beside each other and while the VM still
 * runs: a QEMU that keeps a state that it never loads is one that is ended, for it has to be started again.
 */
async function openTarget(target: Target, options: ResetOptions): Promise<OpenedVm> {
  const { process, stored, state } = target;
  const { surroundings, signal, kept, clock } = options;
  const layout = kept.layouts.recall(process);
  const connection = await connectQmp(process, signal);
  const { qmp } = connection;
  const shifted = shiftClocks(state, clocksOf(stored, clock), process.options);
  const [handed, plugged, controlled] = await Promise.allSettled([
    StateInPlace.handOver(process.name, qmp, shifted),
    pluggedDevices(qmp),
    ControlledVm.overRestored(process, connection, surroundings, { resumes: true, layout }),
  ]);
  if (controlled.status === 'rejected') throw controlled.reason; // which has closed the connection
  const vm = controlled.value;
  try {
    if (handed.status === 'rejected') throw handed.reason;
    if (plugged.status === 'rejected') throw plugged.reason;
    return { vm, state: handed.value, fits: canBeReset(vm, target, plugged.value) };
  } catch (error) {
    await vm.close();
    throw error;
  }
}

async function findTargets(options: ResetOptions): Promise<Target[] | null> {
  const { manifest, running } = options;
  if (running.length !== manifest.vms.length) return null;
  const targets: Target[] = [];
  for (const stored of manifest.vms) {
    const process = running.find(({ name }) => name === stored.name);
    const spec = await launchSpec(stored, options);
    if (process === undefined || !isWhatWouldBeStarted(process, stored, spec)) return null;
    targets.push({
      process,
      stored,
      spec,
      state: await readFile(join(options.directory, stored.state.file)),
    });
  }
  return targets;
}

/**
 * Behind the closed gate no frame comes any more. A stopping QEMU drops the frame that it has read and not delivered
 * (QEMU net/net.c, net_vm_change_state_handler), and then reads one more if there is any: the rings are emptied first.
 */
async function stopWithEmptyRings(vm: ControlledVm): Promise<void> {
  const fds = vm.taps.flatMap((tap) => tap.fds);
  for (const fd of fds) readTapFrames(fd);
  await vm.qmp.execute('stop');
  if (!fds.every(tapRingIsEmpty))
    throw new StaghornError('vm-unfit', `VM ${vm.name} may have read a frame when it stopped`);
}
