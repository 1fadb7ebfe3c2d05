import type { AgentResult, RamStorage } from '../../protocol/rpc.ts';
import type { Time } from '../../protocol/time.ts';
import type { ExternalFrames, Progress, SnapshotInput } from '../../protocol/resources.ts';
import { AgentBarrier, defaultLeaseMs, type BarrierHost, type VmInstants } from '../hosts/agent-barrier.ts';
import { planCut, toControllerClock, toHostClock, type PlannedCut } from '../barrier/planning.ts';
import type { Phase } from '../barrier/procedures.ts';
import type { MarkedPaths } from '../hosts/marked-paths.ts';

/** How long frames in flight are waited for, and how long it must have been quiet. */
export const drainBoundMs = 30_000;
export const drainQuietMs = 2;

export interface StopBarrierOptions {
  readonly experiment: string;
  /** Null: time is only stopped. */
  readonly snapshot: {
    readonly id: string;
    readonly createdAt: string;
    /** The moment it comes from. */
    readonly parent: string | null;
    readonly input: SnapshotInput;
  } | null;
  readonly hosts: readonly BarrierHost[];
  readonly externalFrames: ExternalFrames;
  /** Cuts that were planned in vain before: this one is planned further ahead. */
  readonly cutsInVain?: number;
  readonly report: (progress: Progress) => void;
}

/** What came back from the hosts, by host. */
export interface StopBarrierResults {
  readonly arm: Map<string, AgentResult<'arm'>>;
  readonly cut: Map<string, AgentResult<'cut'>>;
  readonly drain: Map<string, AgentResult<'drain'>>;
  readonly save: Map<string, AgentResult<'save'>>;
  readonly store: Map<string, AgentResult<'store'>>;
  readonly settle: Map<string, AgentResult<'settle'>>;
  readonly commit: Map<string, AgentResult<'commit'>>;
  /** Instants on the controller's clock. */
  readonly stops: Map<string, VmInstants>;
  readonly resumes: ReadonlyMap<string, VmInstants>;
  readonly markers: MarkedPaths;
}

/** A barrier over running VMs: a snapshot or a pause. */
export class StopBarrier extends AgentBarrier {
  readonly results: StopBarrierResults = {
    arm: new Map(),
    cut: new Map(),
    drain: new Map(),
    save: new Map(),
    store: new Map(),
    settle: new Map(),
    commit: new Map(),
    stops: new Map(),
    resumes: this.resumes,
    markers: this.markers,
  };
  readonly #options: StopBarrierOptions;
  #cut: PlannedCut = { atNs: 0n, agreedByNs: 0n };
  #attempt = 0;
  #maySealed = false;

  constructor(options: StopBarrierOptions) {
    super(options.hosts, options.report);
    this.#options = options;
    this.#attempt = options.cutsInVain ?? 0;
  }

  /** Whether a host may have sealed its part. */
  get maySealed(): boolean {
    return this.#maySealed;
  }

  override enter(phase: Phase): void {
    super.enter(phase);
    if (phase.name === 'commit') this.#maySealed = true;
    if (phase.name === 'schedule') this.#planCut();
  }

  /** Anew at each attempt, further ahead. */
  #planCut(): void {
    this.#attempt += 1;
    const clocks = this.#options.hosts.map(({ clock }) => clock);
    this.#cut = planCut(this.time.nowNs(), clocks, this.#attempt);
  }

  #cutOf(host: BarrierHost) {
    return { barrier: this.id, atNs: toHostClock(this.#cut.atNs, host.clock) };
  }

  protected override ports() {
    return new Map([...this.results.arm].map(([host, { ports }]) => [host, ports]));
  }

  protected override stopsOf({ name }: BarrierHost): VmInstants {
    return this.results.stops.get(name) ?? new Map();
  }

  protected override readonly steps = {
    arm: async (host: BarrierHost, signal: AbortSignal) => {
      const { experiment, snapshot, externalFrames } = this.#options;
      const params = {
        barrier: this.id,
        experiment,
        snapshot: snapshot?.id ?? null,
        vms: host.vms === null ? null : [...host.vms],
        method: snapshot?.input.method ?? 'auto',
        parent: snapshot?.input.incremental === true ? snapshot.parent : null,
        ram: ramStorageOf(snapshot?.input),
        leaseMs: defaultLeaseMs,
        frameBufferBytes: host.frameBufferBytes,
        externalPorts: [...host.externalPorts],
        externalFrames,
      };
      this.results.arm.set(host.name, await this.ask(host, 'arm', params, signal));
    },
    probe: (host: BarrierHost, signal: AbortSignal) => this.probe(host, signal),
    listen: (host: BarrierHost, signal: AbortSignal) => this.listen(host, signal),
    schedule: async (host: BarrierHost, signal: AbortSignal) => {
      const asked = this.ask(host, 'schedule', this.#cutOf(host), signal).then(({ accepted }) => accepted);
      const agreed = await unless(asked, this.time, this.#cut.agreedByNs);
      return agreed ? undefined : 'refused';
    },
    recall: async (host: BarrierHost, signal: AbortSignal) => {
      await this.ask(host, 'recall', { barrier: this.id }, signal);
    },
    cut: async (host: BarrierHost, signal: AbortSignal) => {
      const params = this.#cutOf(host);
      const report = await this.ask(host, 'cut', params, signal);
      this.results.cut.set(host.name, report);
      this.results.stops.set(
        host.name,
        new Map(
          report.vms.map(({ name, stoppedAtNs }) => [name, toControllerClock(stoppedAtNs, host.clock)]),
        ),
      );
    },
    drain: async (host: BarrierHost, signal: AbortSignal) => {
      const params = { barrier: this.id, boundMs: drainBoundMs, quietMs: drainQuietMs };
      this.results.drain.set(host.name, await this.ask(host, 'drain', params, signal));
    },
    save: async (host: BarrierHost, signal: AbortSignal) => {
      this.results.save.set(host.name, await this.ask(host, 'save', { barrier: this.id }, signal));
    },
    resume: (host: BarrierHost, signal: AbortSignal) => this.resume(host, signal),
    settle: async (host: BarrierHost, signal: AbortSignal) => {
      this.results.settle.set(host.name, await this.ask(host, 'settle', { barrier: this.id }, signal));
    },
    store: async (host: BarrierHost, signal: AbortSignal) => {
      this.results.store.set(host.name, await this.ask(host, 'store', { barrier: this.id }, signal));
    },
    commit: async (host: BarrierHost, signal: AbortSignal) => {
      const { experiment, snapshot } = this.#options;
      if (snapshot === null) throw new TypeError('a pause commits nothing');
      const params = { barrier: this.id, snapshot: snapshot.id, experiment, createdAt: snapshot.createdAt };
      this.results.commit.set(host.name, await this.ask(host, 'commit', params, signal));
    },
  };
}

function ramStorageOf(input: SnapshotInput | undefined): RamStorage {
  return {
    compression: input?.compression ?? 'none',
    level: input?.compressionLevel ?? 1,
    maxBytesPerSecond: input?.maxBandwidth ?? 0,
  };
}

/** What comes of it, or false if it has not by then. */
async function unless(promise: Promise<boolean>, time: Time, byNs: bigint): Promise<boolean> {
  let cancel = () => {};
  const late = new Promise<false>((resolve) => {
    const delayMs = Math.max(0, Number(byNs - time.nowNs()) / 1e6);
    cancel = time.after(delayMs, () => resolve(false));
  });
  // An answer that comes too late is of no use, nor is an error: the recall fails of the same.
  promise.catch(() => undefined);
  try {
    return await Promise.race([promise, late]);
  } finally {
    cancel();
  }
}
