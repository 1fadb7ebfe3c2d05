import type { Placement } from '../protocol/fork.ts';
import type { Progress, RestoreInput } from '../protocol/resources.ts';
import type { AgentResult } from '../protocol/rpc.ts';
import { AgentBarrier, defaultLeaseMs, type BarrierHost, type VmInstants } from './agent-barrier.ts';

/** How long frames of the time line that is given up are waited for, and how long it must have been quiet. */
const flushBoundMs = 10_000;
const flushQuietMs = 2;

export interface RestoreBarrierOptions {
  readonly snapshot: string;
  /** SHA-256 of each host's manifest, by host. */
  readonly manifests: Readonly<Record<string, string>>;
  /** When each VM had stopped, by host, on one clock of the time of the snapshot: only differences count. */
  readonly stopOffsetsNs: ReadonlyMap<string, VmInstants>;
  readonly input: RestoreInput;
  /** Of a fork: where it is put. */
  readonly placement?: Placement;
  readonly hosts: readonly BarrierHost[];
  readonly report: (progress: Progress) => void;
}

/** A barrier that brings the VMs of a snapshot back, each as much later than the first as it had stopped later. */
export class RestoreBarrier extends AgentBarrier {
  readonly resumes = new Map<string, VmInstants>();
  readonly settled = new Map<string, AgentResult<'settle'>>();
  readonly #options: RestoreBarrierOptions;

  constructor(options: RestoreBarrierOptions) {
    super(options.hosts, options.report);
    this.#options = options;
  }

  protected override stopsOf({ name }: BarrierHost): VmInstants {
    return this.#options.stopOffsetsNs.get(name) ?? new Map();
  }

  protected override readonly steps = {
    restoreCheck: async (host: BarrierHost, signal: AbortSignal) => {
      const { snapshot, manifests, input } = this.#options;
      const params = {
        barrier: this.id,
        snapshot,
        manifestSha256: manifests[host.name] ?? '',
        replace: input.replace,
        verify: input.verify,
        vms: input.vms ?? null,
        clock: input.clock,
        placement: this.#options.placement ?? null,
        leaseMs: defaultLeaseMs,
        frameBufferBytes: host.frameBufferBytes,
      };
      await this.ask(host, 'restoreCheck', params, signal);
    },
    restorePrepare: async (host: BarrierHost, signal: AbortSignal) => {
      await this.ask(host, 'restorePrepare', { barrier: this.id }, signal);
    },
    // Now that every VM of the other time line has ended, on all hosts.
    restoreDrain: async (host: BarrierHost, signal: AbortSignal) => {
      const params = { barrier: this.id, boundMs: flushBoundMs, quietMs: flushQuietMs };
      await this.ask(host, 'restoreDrain', params, signal);
    },
    resume: async (host: BarrierHost, signal: AbortSignal) => {
      this.resumes.set(host.name, await this.resume(host, signal));
    },
    settle: async (host: BarrierHost, signal: AbortSignal) => {
      this.settled.set(host.name, await this.ask(host, 'settle', { barrier: this.id }, signal));
    },
  };
}
