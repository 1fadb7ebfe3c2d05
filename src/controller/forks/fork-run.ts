import type { ForkResult } from '../../protocol/fork.ts';
import type { RestoreInput } from '../../protocol/resources.ts';
import { defaultLeaseMs, type BarrierHost } from '../hosts/agent-barrier.ts';
import { forkProcedure, restoreProcedure } from '../barrier/procedures.ts';
import { BarrierRun } from '../barrier/run.ts';
import type { StoredSnapshot } from '../catalog/catalog.ts';
import type { PlannedFork } from './fork-plan.ts';
import type { Pauses } from '../snapshots/pauses.ts';
import { RestoreBarrier } from '../restores/restore-barrier.ts';
import type { RestorePart } from '../restores/restore-plan.ts';

export type MadeFork = ForkResult['forks'][number];

export interface ForkRunOptions {
  readonly stored: StoredSnapshot;
  /** Of the experiment that is forked. */
  readonly hosts: readonly BarrierHost[];
  /** Whether the checksums of RAM are recomputed. */
  readonly verify: boolean;
  /** It is to stand when it is loaded, for as long as nobody resumes it. */
  readonly paused: boolean;
  readonly startedAtNs: bigint;
  readonly signal: AbortSignal;
}

/** One fork on its way: loaded first, and let go when all of its request are. */
export class ForkRun {
  readonly #fork: PlannedFork;
  readonly #options: ForkRunOptions;
  readonly #barrier: RestoreBarrier;
  readonly #run: BarrierRun;
  readonly #cancel = new AbortController();
  #loaded: () => void = () => undefined;
  /** Rejects with the cause when it was given up and nothing of it is under way any more. */
  #completed: Promise<void> = Promise.resolve();

  constructor(fork: PlannedFork, options: ForkRunOptions) {
    const { stored, hosts, verify, paused } = options;
    const { definition, vms } = fork;
    const { fork: number, tunnelKeys } = definition.fork;
    this.#fork = fork;
    this.#options = options;
    this.#barrier = new RestoreBarrier({
      snapshot: stored.snapshot.id,
      stoppedAtMs: Date.parse(stored.snapshot.stoppedAt ?? stored.snapshot.createdAt),
      parts: partsOf(fork, stored, hosts),
      whole: true,
      input: { ...plainRestore, verify },
      placement: { fork: number, tunnelKeys },
      hosts: hosts.map((host) => ({
        ...host,
        vms: [...(vms.get(host.name)?.values() ?? [])],
        externalPorts: [],
      })),
      report: ({ step }) => {
        if (step === 'hold') this.#loaded();
      },
    });
    const names = hosts.map(({ name }) => name);
    const procedure = paused ? restoreProcedure({ marked: false, paused }) : forkProcedure;
    const port = this.#barrier;
    const signal = AbortSignal.any([options.signal, this.#cancel.signal]);
    this.#run = new BarrierRun({ procedure, hosts: names, port, leaseMs: defaultLeaseMs, signal });
  }

  /** Brings its VMs to where they only have to be let go. @throws StaghornError */
  async load(): Promise<void> {
    const loaded = new Promise<void>((resolve) => (this.#loaded = resolve));
    this.#completed = this.#run.complete().finally(() => this.#barrier.close());
    this.#completed.catch(() => undefined);
    await Promise.race([loaded, this.#completed]);
  }

  release(): void {
    this.#run.release();
  }

  /** Leaves it standing: whoever resumes it lets it go. */
  stay(pauses: Pauses, onEnded: () => void): MadeFork {
    const { definition } = this.#fork;
    const held = { run: this.#run, barrier: this.#barrier, ended: this.#completed, cancel: this.#cancel };
    // Nobody waits for it here: its end is told by the pause.
    pauses.adopt(definition.name, held, onEnded).catch(() => undefined);
    return this.#describe(process.hrtime.bigint());
  }

  /** Waits until it runs and every frame is delivered. @throws StaghornError */
  async complete(): Promise<MadeFork> {
    await this.#completed;
    return this.#describe(this.#barrier.lastResumeNs ?? this.#options.startedAtNs);
  }

  #describe(readyNs: bigint): MadeFork {
    const { definition, vms } = this.#fork;
    const settled = [...this.#barrier.settled];
    return {
      experiment: definition.name,
      durationMs: Number(readyNs - this.#options.startedAtNs) / 1e6,
      vms: [...vms].flatMap(([host, names]) => [...names.values()].map((name) => ({ host, name }))),
      framesDelivered: settled.reduce((sum, [, { framesReplayed }]) => sum + framesReplayed, 0),
      warnings: settled.flatMap(([host, { warnings }]) => warnings.map((text) => `host ${host}: ${text}`)),
    };
  }
}

const plainRestore: RestoreInput = {
  replace: false,
  verify: true,
  paused: false,
  clock: 'hidden',
  dryRun: false,
};

/** Each host makes the fork of its own part; VMs have the names of the fork. */
function partsOf(
  { vms }: PlannedFork,
  { snapshot, manifests }: StoredSnapshot,
  hosts: readonly BarrierHost[],
): Map<string, RestorePart> {
  const parts = hosts.map(({ name: host }): [string, RestorePart] => {
    const own = snapshot.vms.filter((vm) => vm.host === host);
    const stops = own.map(
      ({ name, stopOffsetNs }) => [vms.get(host)!.get(name)!, BigInt(stopOffsetNs)] as const,
    );
    const part = { from: host, to: host, vms: null, manifestSha256: manifests[host] ?? '' };
    return [host, { ...part, stopOffsetsNs: new Map(stops) }];
  });
  return new Map(parts);
}
