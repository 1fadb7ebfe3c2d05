import type { Placement } from '../../protocol/fork.ts';
import type { Progress, RestoreInput } from '../../protocol/resources.ts';
import type { AgentResult } from '../../protocol/rpc.ts';
import { AgentBarrier, defaultLeaseMs, type BarrierHost, type VmInstants } from '../hosts/agent-barrier.ts';
import type { Phase } from '../barrier/procedures.ts';
import type { RestorePart } from './restore-plan.ts';

/** How long frames of the time line that is given up are waited for, and how long it must have been quiet. */
const flushBoundMs = 10_000;
const flushQuietMs = 2;
const abortTimeoutMs = 60_000;
/** VMs that run on beside those that are restored may never be quiet. */
const flushBoundBesideOthersMs = 200;

export interface RestoreBarrierOptions {
  readonly snapshot: string;
  /** When its time stopped, by the controller's CLOCK_REALTIME in milliseconds. */
  readonly stoppedAtMs: number;
  /** What each host takes, by host. */
  readonly parts: ReadonlyMap<string, RestorePart>;
  /** Whether it is the whole experiment. */
  readonly whole: boolean;
  readonly input: RestoreInput;
  /** Of a fork: where it is put. */
  readonly placement?: Placement;
  readonly hosts: readonly BarrierHost[];
  readonly report: (progress: Progress) => void;
}

/** A barrier that brings the VMs of a snapshot back, each as much later than the first as it had stopped later. */
export class RestoreBarrier extends AgentBarrier {
  readonly checked = new Map<string, AgentResult<'restoreCheck'>>();
  readonly prepared = new Map<string, AgentResult<'restorePrepare'>>();
  readonly flushed = new Map<string, AgentResult<'restoreDrain'>>();
  readonly settled = new Map<string, AgentResult<'settle'>>();
  readonly #options: RestoreBarrierOptions;
  /** In which condition each host was left by an abort, in words. */
  readonly outcomes = new Map<string, string>();
  #elapsedMs = 0;
  #loadBeganNs = 0n;
  #touched = false;

  constructor(options: RestoreBarrierOptions) {
    super(options.hosts, options.report);
    this.#options = options;
  }

  /** Real time from the moment of the snapshot to the beginning of the load; the same for all hosts. */
  get elapsedMs(): number {
    return this.#elapsedMs;
  }

  get loadBeganNs(): bigint {
    return this.#loadBeganNs;
  }

  /** Whether anything that ran may have been touched. */
  get touched(): boolean {
    return this.#touched;
  }

  override enter(phase: Phase): void {
    super.enter(phase);
    if (phase.name !== 'load') return;
    this.#touched = true;
    this.#loadBeganNs = process.hrtime.bigint();
    this.#elapsedMs = Math.max(0, Date.now() - this.#options.stoppedAtMs);
  }

  override async abort(hostName: string, reason: string): Promise<void> {
    const params = { barrier: this.id, reason };
    const { outcome } = await this.ask(this.hosts.get(hostName)!, 'abort', params, undefined, abortTimeoutMs);
    this.outcomes.set(hostName, outcome);
  }

  protected override ports() {
    return new Map([...this.prepared].map(([host, { ports }]) => [host, ports]));
  }

  protected override stopsOf({ name }: BarrierHost): VmInstants {
    return this.#options.parts.get(name)?.stopOffsetsNs ?? new Map();
  }

  protected override readonly steps = {
    restoreCheck: async (host: BarrierHost, signal: AbortSignal) => {
      const { snapshot, parts, input } = this.#options;
      const part = parts.get(host.name)!;
      const params = {
        barrier: this.id,
        snapshot,
        manifestSha256: part.manifestSha256,
        // A dry run tells what would be destroyed.
        replace: input.replace || input.dryRun,
        verify: input.verify,
        vms: part.vms === null ? null : [...part.vms],
        clock: input.clock,
        moved: part.from !== part.to,
        placement: this.#options.placement ?? null,
        leaseMs: defaultLeaseMs,
        frameBufferBytes: host.frameBufferBytes,
      };
      this.checked.set(host.name, await this.ask(host, 'restoreCheck', params, signal));
    },
    restorePrepare: async (host: BarrierHost, signal: AbortSignal) => {
      const params = { barrier: this.id, elapsedNs: BigInt(Math.round(this.#elapsedMs * 1e6)) };
      this.prepared.set(host.name, await this.ask(host, 'restorePrepare', params, signal));
    },
    // Now that every VM of the other time line has ended, on all hosts.
    probe: (host: BarrierHost, signal: AbortSignal) => this.probe(host, signal),
    listen: (host: BarrierHost, signal: AbortSignal) => this.listen(host, signal),
    restoreDrain: async (host: BarrierHost, signal: AbortSignal) => {
      const boundMs = this.#options.whole ? flushBoundMs : flushBoundBesideOthersMs;
      const params = { barrier: this.id, boundMs, quietMs: flushQuietMs, alone: this.hosts.size === 1 };
      this.flushed.set(host.name, await this.ask(host, 'restoreDrain', params, signal));
    },
    resume: (host: BarrierHost, signal: AbortSignal) => this.resume(host, signal),
    settle: async (host: BarrierHost, signal: AbortSignal) => {
      this.settled.set(host.name, await this.ask(host, 'settle', { barrier: this.id }, signal));
    },
  };
}
