import { StaghornError } from '../errors/index.ts';
import type { HeldVm } from '../native/barrier.ts';
import { monotonicNs, realtimeMinusMonotonicNs } from '../native/clock.ts';
import { closeDescriptor, duplicateDescriptor } from '../native/descriptors.ts';
import type { NativePause, PausedThreads } from '../native/paused-threads.ts';
import type { Nic, SaveMethod, Vm } from '../protocol/vm.ts';
import type { PreparedCommand, QmpClient, QmpEvent } from '../qmp/index.ts';
import { connectQmp, vmError } from './connect-qmp.ts';
import { DeviceStateFile } from './device-state-file.ts';
import type { DiskDirectory } from './disks/disk-directory.ts';
import { VmDisks } from './disks/vm-disks.ts';
import { describeRestoredVm, describeVm, type HostSurroundings } from './inspect.ts';
import { readDescriptors } from './open-descriptors.ts';
import type { QemuProcess } from './qemu-process.ts';
import { readRamLayout, type RamLayout } from './ram-layout.ts';
import { forgottenVlans } from './rx-filter.ts';
import type { SaveTarget } from './save/keeper.ts';
import { saveMethods, type KeptRam, type MethodWish, type RamKeeper } from './save-methods.ts';
import { tapDescriptors } from './tap-descriptors.ts';
import { threadTimesOf } from './thread-times.ts';
import { readVcpuThreads } from './vcpu-threads.ts';

/** From the preparation of a command, right before its instant, to QEMU's word that the vCPUs stopped or run. */
const runStateTimeoutMs = 4_000;

/** A NIC with our own descriptors of its tap, one for each queue. */
export interface ControlledTap {
  readonly nic: Nic;
  readonly fds: readonly number[];
  /** Their numbers in QEMU. */
  readonly qemuFds: readonly number[];
}

/** A command whose bytes another thread writes, and the instant at which QEMU said it was done. */
export interface RunStateChange {
  readonly bytes: Buffer;
  /** How many of them may be written ahead. */
  readonly headBytes: number;
  /** What is to be let go with it. */
  readonly letsGo: NativePause | null;
  /** Threads that stand still when it comes. */
  readonly held: HeldVm | null;
  /** Leaves the QMP connection alone until the returned function is called; null: nobody else has it. */
  readonly leaveAlone: (() => () => void) | null;
  /** CLOCK_MONOTONIC at which the vCPUs had stopped, or ran again. */
  readonly happened: Promise<bigint>;
}

/** What a VM was stopped with: its devices' state and its RAM as they were at that instant. */
export interface StoppedVm {
  readonly stateNs: number;
  readonly stateBytes: number;
  readonly ram: KeptRam;
}

export interface ControlOptions {
  /** The VM is paused by us, and is to run in the end. */
  readonly resumes?: boolean;
  /** What is to be known of how it could be saved; everything if left out. */
  readonly wish?: MethodWish;
}

/** How a change of the run state is carried out. */
export interface Treatment {
  /** vCPUs stand still while the main thread works (docs/decisions/0029). */
  readonly holdsVcpus: boolean;
  /** Main threads stand still for the resume too, and not for the stop alone. */
  readonly holdsForResume: boolean;
}

interface Parts {
  readonly process: QemuProcess;
  readonly vm: Vm;
  readonly qmp: QmpClient;
  readonly taps: readonly ControlledTap[];
  readonly layout: RamLayout;
  readonly disks: VmDisks;
  readonly resumes: boolean;
  readonly vcpuThreads: readonly number[];
}

/**
 * A VM under control: its QMP connection and its taps are held until `close`.
 * Invariant: everything that a cut needs is opened here, before it.
 */
export class ControlledVm {
  readonly process: QemuProcess;
  readonly vm: Vm;
  readonly qmp: QmpClient;
  readonly taps: readonly ControlledTap[];
  readonly layout: RamLayout;
  readonly disks: VmDisks;
  /** Whether it runs outside the barrier: one that its owner had paused is neither stopped nor resumed by us. */
  readonly resumes: boolean;
  readonly #vcpuThreads: readonly number[];
  #state: DeviceStateFile | undefined;
  #keeper: RamKeeper | undefined;
  #held: PausedThreads | undefined;

  private constructor(parts: Parts) {
    this.process = parts.process;
    this.vm = parts.vm;
    this.qmp = parts.qmp;
    this.taps = parts.taps;
    this.layout = parts.layout;
    this.disks = parts.disks;
    this.resumes = parts.resumes;
    this.#vcpuThreads = parts.vcpuThreads;
  }

  /** @throws StaghornError 'vm-unfit', 'vm-failed' */
  static async open(
    process: QemuProcess,
    surroundings: HostSurroundings,
    signal?: AbortSignal,
    options: ControlOptions = {},
  ): Promise<ControlledVm> {
    return ControlledVm.over(process, await connectQmp(process, signal), surroundings, options);
  }

  /** The same with a QMP connection that is open already; it is owned, and closed if this fails. */
  static async over(
    process: QemuProcess,
    { qmp, path }: { qmp: QmpClient; path: string },
    surroundings: HostSurroundings,
    { resumes = false, wish }: ControlOptions = {},
  ): Promise<ControlledVm> {
    let taps: ControlledTap[] = [];
    try {
      const [{ vm, layout, disks }, vcpuThreads] = await Promise.all([
        describeVm(process, { qmp, path }, surroundings, wish),
        readVcpuThreads(qmp),
      ]);
      if (layout.status === 'rejected') throw layout.reason;
      taps = openTaps(process.pid, vm);
      return new ControlledVm({
        process,
        vm,
        qmp,
        taps,
        layout: layout.value,
        disks: new VmDisks(process, qmp, disks),
        resumes: resumes || vm.status === 'running',
        vcpuThreads,
      });
    } catch (error) {
      closeTaps(taps);
      await qmp.close();
      throw vmError(process.name, 'taking control', error);
    }
  }

  /**
   * A VM that is restored, and will not be saved under this control: it is asked for less, and owned the same.
   * @param options.layout where its memory lies, if that is known
   */
  static async overRestored(
    process: QemuProcess,
    connection: { qmp: QmpClient; path: string },
    surroundings: HostSurroundings,
    { resumes, layout: known }: { resumes: boolean; layout: RamLayout | null },
  ): Promise<ControlledVm> {
    const { qmp } = connection;
    try {
      const layout = known ?? (await readRamLayout(qmp, process.pid, process.options));
      const vm = await describeRestoredVm(process, connection, surroundings, layout);
      const taps = openTaps(process.pid, vm);
      return new ControlledVm({
        process,
        vm,
        qmp,
        taps,
        layout,
        disks: new VmDisks(process, qmp, []),
        resumes,
        vcpuThreads: [],
      });
    } catch (error) {
      await qmp.close();
      throw vmError(process.name, 'taking control', error);
    }
  }

  get name(): string {
    return this.vm.name;
  }

  /** Makes ready to keep devices, RAM and disks; to be called before time stops. */
  async prepareSave(
    method: SaveMethod,
    place: Pick<SaveTarget, 'directory' | 'maxBytesPerSecond'>,
    overlays: DiskDirectory,
  ): Promise<void> {
    try {
      await this.#state?.close();
      this.#state = await DeviceStateFile.prepare(this.qmp);
      this.#keeper = await saveMethods[method].prepare({
        pid: this.process.pid,
        qmp: this.qmp,
        layout: this.layout,
        ...place,
      });
      await this.disks.prepare(overlays);
    } catch (error) {
      throw vmError(this.name, `preparing to save by method ${method}`, error);
    }
  }

  /** What a restore of it will lack, in words. @throws StaghornError 'vm-failed' */
  async losses(): Promise<string[]> {
    try {
      return forgottenVlans(this.name, await this.qmp.execute('query-rx-filter'));
    } catch (error) {
      throw vmError(this.name, 'reading the filters of its NICs', error);
    }
  }

  /** For how long its vCPUs have run or waited for a processor. */
  wantedNs(): bigint {
    const { ranNs, waitedNs } = threadTimesOf(this.process.pid, this.#vcpuThreads);
    return ranNs + waitedNs;
  }

  prepareStop(treatment: Treatment): RunStateChange {
    return this.#prepare('stop', 'STOP', treatment, runStateTimeoutMs);
  }

  /** @param timeoutMs how long it may take until the VM runs */
  prepareResume(treatment: Treatment, timeoutMs = runStateTimeoutMs): RunStateChange {
    return this.#prepare('cont', 'RESUME', treatment, timeoutMs);
  }

  /** Keeps disks, devices and RAM of the VM, which must be stopped. */
  async keep(): Promise<StoppedVm> {
    if (this.#state === undefined || this.#keeper === undefined)
      throw new Error('prepareSave was not called');
    try {
      await this.disks.cut();
      const stateNs = await this.#state.save();
      const ram = await this.#keeper.keep();
      this.#held = ram.held;
      return { stateNs, stateBytes: this.#state.bytes(), ram };
    } catch (error) {
      throw vmError(this.name, 'saving', error);
    }
  }

  /** Lets go of kept RAM. May be called again. */
  async releaseRam(): Promise<void> {
    await this.#keeper?.close();
  }

  readDeviceState(): Promise<Buffer> {
    if (this.#state === undefined) throw new Error('prepareSave was not called');
    return this.#state.read();
  }

  async isRunning(): Promise<boolean> {
    return (await this.qmp.execute('query-status', {}, { timeoutMs: runStateTimeoutMs })).running;
  }

  async close(): Promise<void> {
    closeTaps(this.taps);
    await this.releaseRam().catch(() => undefined);
    await this.#state?.close();
    await this.disks.close();
    await this.qmp.close();
  }

  #prepare(
    command: 'stop' | 'cont',
    eventName: 'STOP' | 'RESUME',
    { holdsVcpus, holdsForResume }: Treatment,
    timeoutMs: number,
  ): RunStateChange {
    const vcpuThreads = holdsVcpus ? this.#vcpuThreads : [];
    const isHeld = command === 'stop' || holdsForResume;
    // First what throws if the connection is gone. The event is awaited before the command is written.
    const prepared = this.qmp.prepare(command);
    const event = this.qmp.waitEvent(eventName, { timeoutMs });
    return {
      bytes: prepared.bytes,
      headBytes: prepared.bytes.length - 1,
      letsGo: this.#held?.native ?? null,
      held: isHeld ? { mainThread: this.process.pid, vcpuThreads } : null,
      leaveAlone: () => this.qmp.leaveAlone(),
      happened: this.#instantOf(command, prepared, event),
    };
  }

  async #instantOf(
    command: 'stop' | 'cont',
    prepared: PreparedCommand<unknown>,
    event: Promise<QmpEvent>,
  ): Promise<bigint> {
    try {
      // RESUME comes before the reply to `cont`, and not at all if the VM ran (vm_prepare_start in QEMU's cpus.c).
      const answered = prepared.reply.then(() =>
        command === 'cont' ? null : new Promise<never>(() => undefined),
      );
      const told = await Promise.race([event, answered]);
      return told === null ? monotonicNs() : told.timestampNs - realtimeMinusMonotonicNs();
    } catch (error) {
      throw vmError(this.name, `command ${command}`, error);
    }
  }
}

function openTaps(pid: number, vm: Vm): ControlledTap[] {
  const descriptors = tapDescriptors(pid, readDescriptors(pid));
  const taps: { nic: Nic; fds: number[]; qemuFds: number[] }[] = [];
  try {
    for (const nic of vm.nics) {
      const own = descriptors.filter(({ tap }) => tap === nic.tap);
      if (own.length === 0)
        throw new StaghornError('network-unfit', `tap ${nic.tap} is not open in QEMU any more`);
      const fds: number[] = [];
      taps.push({ nic, fds, qemuFds: own.map(({ fd }) => fd) });
      for (const { fd } of own) fds.push(duplicateDescriptor({ pid, fd }));
    }
    return taps;
  } catch (error) {
    closeTaps(taps);
    throw error;
  }
}

function closeTaps(taps: readonly ControlledTap[]): void {
  for (const fd of taps.flatMap(({ fds }) => fds)) closeDescriptor(fd);
}
