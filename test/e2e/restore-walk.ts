import { randomUUID } from 'node:crypto';

import { until } from '../../src/lab/processes.ts';
import { BarrierWalk, timeoutMs, type WalkOptions } from './barrier-walk.ts';

export const restoreSteps = ['loading', 'load', 'resume'] as const;
export type RestoreStep = (typeof restoreSteps)[number];

interface WalkedSnapshot {
  readonly id: string;
  readonly vms: readonly { readonly name: string; readonly host: string }[];
}

export interface RestoreWalkOptions extends WalkOptions {
  readonly snapshot: WalkedSnapshot;
  /** SHA-256 of each host's manifest. */
  readonly manifests: Readonly<Record<string, string>>;
}

/** A controller that goes through a restore by hand, and stops at any step. */
export class RestoreWalk {
  readonly barrier = randomUUID();
  readonly #walk: BarrierWalk;
  readonly #snapshot: WalkedSnapshot;
  readonly #manifests: Readonly<Record<string, string>>;
  readonly #leaseMs: number;

  private constructor(walk: BarrierWalk, { snapshot, manifests, leaseMs }: RestoreWalkOptions) {
    this.#walk = walk;
    this.#snapshot = snapshot;
    this.#manifests = manifests;
    this.#leaseMs = leaseMs;
  }

  static async connect(options: RestoreWalkOptions): Promise<RestoreWalk> {
    return new RestoreWalk(await BarrierWalk.connect(options), options);
  }

  /** Goes to a step; "loading" is as soon as `isLoading` says that a VM was started. */
  async to(step: RestoreStep, isLoading: () => Promise<boolean>): Promise<void> {
    const { barrier } = this;
    const check = {
      ...{ barrier, snapshot: this.#snapshot.id, replace: true, verify: false },
      ...{ vms: null, clock: 'hidden' as const, moved: false, placement: null },
      ...{ leaseMs: this.#leaseMs, frameBufferBytes: 16 * 1024 * 1024 },
    };
    await this.#each(({ name, agent }) => {
      const manifestSha256 = this.#manifests[name] ?? '';
      return agent.client.call('restoreCheck', { ...check, manifestSha256 }, { timeoutMs });
    });
    const loading = this.#each(({ agent }) =>
      agent.client.call('restorePrepare', { barrier, elapsedNs: 0n }, { timeoutMs }),
    );
    loading.catch(() => undefined);
    if (step === 'loading') {
      await until(isLoading, { timeoutMs, everyMs: 1 });
      return;
    }
    await loading;
    if (step === 'load') return;
    await this.#each(({ agent }) =>
      agent.client.call(
        'restoreDrain',
        { barrier, boundMs: 10_000, quietMs: 2, alone: false },
        { timeoutMs },
      ),
    );
    const atNs = process.hrtime.bigint() + 60_000_000n;
    await this.#each(({ name, agent, clockOffsetNs }) => {
      const own = this.#snapshot.vms.filter(({ host }) => host === name);
      const vms = own.map((vm) => ({ name: vm.name, atNs: atNs + clockOffsetNs }));
      return agent.client.call('resume', { barrier, vms }, { timeoutMs });
    });
  }

  /** From here on the VMs stay, whatever becomes of the agents. */
  async settle(): Promise<void> {
    await this.#each(({ agent }) => agent.client.call('settle', { barrier: this.barrier }, { timeoutMs }));
  }

  close(): Promise<void> {
    return this.#walk.close();
  }

  async #each(work: (host: BarrierWalk['hosts'][number]) => Promise<unknown>): Promise<void> {
    await Promise.all(this.#walk.hosts.map(work));
  }
}
