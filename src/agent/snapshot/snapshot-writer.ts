import { hostname, release } from 'node:os';

import { StaghornError } from '../../errors/index.ts';
import { encodeFrameFile } from '../../network/frame-file.ts';
import type { HeldFrame } from '../../network/vm-ports.ts';
import type { AgentParams, AgentResult, StoreReport, VmResume } from '../../protocol/rpc.ts';
import type { SaveMethod } from '../../protocol/vm.ts';
import { filesNamedBy } from '../../store/manifest-files.ts';
import { manifestFormat, manifestVersion, type HostManifest, type StoredVm } from '../../store/manifest.ts';
import { allocatedBytes, type PartialSnapshot } from '../../store/snapshot-directory.ts';
import { vmError } from '../../vmm/connect-qmp.ts';
import type { ControlledVm } from '../../vmm/controlled-vm.ts';
import { formatCommandLine, withoutRestoreOptions } from '../../vmm/command-line.ts';
import { readHiddenNs } from '../../vmm/hidden-time.ts';
import { ramBytesOf } from '../../vmm/ram-layout.ts';
import type { RamStorage } from './ram-storage.ts';
import { StoppedVmSaver, type StoredVmParts } from './stopped-vm-saver.ts';
import type { SwitchSaver } from './switch-saver.ts';
import type { StopInstants } from '../session/vm-group.ts';
import { version } from '../../protocol/version.ts';

type KeptReport = AgentResult<'save'>['vms'][number];

const framesFile = 'frames.bin';

/**
 * Writes the snapshot of one host: each VM is kept as soon as it stands still, stored when it may run again, and
 * all is sealed at the end. Invariant: after `discard` nothing of it is left.
 */
export class SnapshotWriter {
  readonly #directory: PartialSnapshot;
  readonly #savers: ReadonlyMap<string, StoppedVmSaver>;
  readonly #keeping = new Map<string, Promise<KeptReport>>();
  readonly #stored = new Map<string, StoredVmParts>();
  readonly #done = new Map<string, number>();
  readonly #switches: SwitchSaver;
  #frames: { content: Buffer; count: number } | undefined;
  #stops: StopInstants = new Map();
  #resumes: ReadonlyMap<string, bigint> = new Map();
  #storing: Promise<unknown> = Promise.resolve();

  constructor(
    directory: PartialSnapshot,
    vms: readonly { vm: ControlledVm; method: SaveMethod }[],
    switches: SwitchSaver,
    storage: RamStorage,
  ) {
    this.#directory = directory;
    this.#switches = switches;
    this.#savers = new Map(
      vms.map(({ vm, method }) => [vm.name, new StoppedVmSaver(vm, method, directory, storage)]),
    );
  }

  /** Begins to keep a VM that has just stopped; `kept` tells how it went. */
  keep(vm: ControlledVm, signal: AbortSignal): void {
    const keeping = this.#keep(this.#saverOf(vm.name), signal);
    keeping.catch(() => undefined);
    this.#keeping.set(vm.name, keeping);
  }

  async kept(): Promise<KeptReport[]> {
    return Promise.all([...this.#savers.keys()].map((name) => this.#keeping.get(name) ?? neverStopped(name)));
  }

  keepFrames(frames: readonly HeldFrame[], stops: StopInstants): void {
    this.#stops = stops;
    const ports = [...this.#savers.values()].flatMap(({ vm }) => vm.taps.map(({ nic }) => nic.tap));
    const records = frames.map(({ vm, port, atNs, gsoSize, frame }) => ({
      port,
      offsetNs: atNs - (stops.get(vm) ?? atNs),
      gsoSize,
      frame,
    }));
    this.#frames = { content: encodeFrameFile({ ports, frames: records }), count: records.length };
  }

  /** Time stands still, and nothing is in flight in the switches any more. */
  keepSwitches(signal: AbortSignal): Promise<void> {
    return this.#switches.keep(signal);
  }

  resumed(resumes: readonly VmResume[]): void {
    this.#resumes = new Map(resumes.map(({ name, resumedAtNs }) => [name, resumedAtNs]));
  }

  async store(signal: AbortSignal, onProgress: (done: number, total: number) => void): Promise<StoreReport> {
    const storing = [...this.#savers.values()].map((saver) => this.#store(saver, signal, onProgress));
    // When one has failed the others still write: only then may the directory be removed.
    this.#storing = Promise.allSettled(storing);
    await Promise.all(storing);
    return {
      bytes: await allocatedBytes(this.#directory.path),
      vms: [...this.#stored].map(([name, { ram }]) => ({
        name,
        ramBytes: ram.bytes,
        storedBytes: ram.storedBytes,
      })),
    };
  }

  async seal(params: AgentParams<'commit'>): Promise<{ manifestSha256: string; bytes: number }> {
    if (this.#frames === undefined) throw new StaghornError('wrong-state', 'frames were not drained');
    const frames = await this.#directory.write(framesFile, this.#frames.content);
    const manifest = withNeeds({
      format: manifestFormat,
      version: manifestVersion,
      snapshot: params.snapshot,
      experiment: params.experiment,
      createdAt: params.createdAt,
      host: { hostname: hostname(), kernel: release(), staghorn: version },
      vms: [...this.#savers.values()].map((saver) => this.#describe(saver)),
      frames: { ...frames, count: this.#frames.count },
      needs: [],
      switches: await this.#switches.store(this.#directory),
    });
    return this.#directory.seal(manifest);
  }

  /** Waits for whatever is under way; afterwards nothing of ours touches a VM. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#keeping.values());
    await this.#storing;
    await Promise.allSettled([...this.#savers.values()].map((saver) => saver.release()));
  }

  async discard(): Promise<void> {
    await this.#directory.discard();
  }

  async #keep(saver: StoppedVmSaver, signal: AbortSignal): Promise<KeptReport> {
    const kept = await saver
      .keep(signal, () => undefined)
      .catch((error: unknown) => {
        throw vmError(saver.vm.name, 'saving', error);
      });
    return {
      name: saver.vm.name,
      method: saver.method,
      stateBytes: kept.stateBytes,
      stateNs: kept.stateNs,
      forkNs: kept.ram.forkNs,
    };
  }

  async #store(
    saver: StoppedVmSaver,
    signal: AbortSignal,
    onProgress: (done: number, total: number) => void,
  ) {
    const total = [...this.#savers.values()].reduce((sum, { vm }) => sum + ramBytesOf(vm.layout), 0);
    const { name } = saver.vm;
    try {
      const stored = await saver.store(signal, (doneBytes) => {
        this.#done.set(name, doneBytes);
        onProgress(
          [...this.#done.values()].reduce((a, b) => a + b, 0),
          total,
        );
      });
      this.#stored.set(name, stored);
    } catch (error) {
      throw vmError(name, 'storing its RAM', error);
    }
  }

  #describe({ vm, method }: StoppedVmSaver): StoredVm {
    const { process, name } = vm;
    const stored = this.#stored.get(name);
    if (stored === undefined) throw new StaghornError('wrong-state', `VM ${name} is not stored`);
    const stoppedAtNs = this.#stops.get(name) ?? 0n;
    return {
      name,
      exe: process.exe,
      args: formatCommandLine(withoutRestoreOptions(process.options)),
      cwd: process.cwd,
      uid: process.uid,
      gid: process.gid,
      qmpSocket: vm.vm.qmpSocket!,
      qemuVersion: vm.vm.qemuVersion!,
      machineType: vm.vm.machineType!,
      accelerator: vm.vm.accelerator!,
      method,
      running: vm.resumes,
      stoppedAtNs,
      resumedAtNs: this.#resumes.get(name) ?? stoppedAtNs,
      hiddenNs: readHiddenNs(process.pid),
      nics: vm.vm.nics,
      ...stored,
    };
  }

  #saverOf(name: string): StoppedVmSaver {
    const saver = this.#savers.get(name);
    if (saver === undefined) throw new Error(`no saver for VM ${name}`);
    return saver;
  }
}

/** Every snapshot that a file is read of. */
function withNeeds(manifest: HostManifest): HostManifest {
  const needs = new Set(filesNamedBy(manifest).flatMap(({ snapshot }) => snapshot ?? []));
  return { ...manifest, needs: [...needs].sort() };
}

function neverStopped(name: string): Promise<never> {
  return Promise.reject(new StaghornError('vm-failed', `VM ${name} did not stop`, { context: { vm: name } }));
}
