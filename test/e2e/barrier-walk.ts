import { randomUUID } from 'node:crypto';

import {
  agentContract,
  protocolVersion,
  type AgentContract,
  type AgentResult,
  type RamStorage,
} from '../../src/protocol/rpc.ts';
import { newSnapshotId } from '../../src/protocol/names.ts';
import type { SaveMethod } from '../../src/protocol/vm.ts';
import { version } from '../../src/protocol/version.ts';
import { connectAgent, type BundleFile, type ConnectedAgent } from '../../src/transport/index.ts';

/** The steps of a snapshot in their order; "storing" has begun to store, and does not wait for it. */
export const walkSteps = ['arm', 'cut', 'drain', 'save', 'resume', 'storing', 'store', 'commit'] as const;
export type WalkStep = (typeof walkSteps)[number];

export interface WalkOptions {
  readonly hosts: readonly string[];
  readonly sshConfig: string;
  readonly bundle: readonly BundleFile[];
  readonly leaseMs: number;
  /** Default: fork. */
  readonly method?: SaveMethod;
  /** Default: none. */
  readonly parent?: string | null;
  readonly ram?: RamStorage;
}

const inFull: RamStorage = { compression: 'none', level: 1, maxBytesPerSecond: 0 };

interface WalkedHost {
  readonly name: string;
  readonly agent: ConnectedAgent<AgentContract>;
  /** What the agent says it found to recover. */
  readonly recovered: string | null;
  /** CLOCK_MONOTONIC of the host minus ours: a host of a lab may have a clock of its own. */
  readonly clockOffsetNs: bigint;
  stops: AgentResult<'cut'>['vms'];
  storing: Promise<unknown>;
}

export const timeoutMs = 60_000;
/** Long enough for agents on a busy machine. */
const leadNs = 300_000_000n;

/** A controller that goes through a barrier by hand, and stops at any step. */
export class BarrierWalk {
  readonly barrier = randomUUID();
  readonly snapshot = newSnapshotId(new Date(), randomUUID().slice(0, 6));
  readonly hosts: readonly WalkedHost[];
  /** Why an agent gave the barrier up by itself, by host. */
  readonly lost = new Map<string, string>();
  /** What was said while arming. */
  readonly warnings: string[] = [];
  readonly #leaseMs: number;
  readonly #method: SaveMethod;
  readonly #storing: { parent: string | null; ram: RamStorage };
  #done = 0;

  private constructor(hosts: readonly WalkedHost[], options: WalkOptions) {
    const { leaseMs, method = 'fork', parent = null, ram = inFull } = options;
    this.hosts = hosts;
    this.#leaseMs = leaseMs;
    this.#method = method;
    this.#storing = { parent, ram };
  }

  static async connect(options: WalkOptions): Promise<BarrierWalk> {
    const { hosts, sshConfig, bundle } = options;
    const target = (host: string) => ({ host, configFile: sshConfig });
    const walked = await Promise.all(
      hosts.map(async (name): Promise<WalkedHost> => {
        const agent = await connectAgent(agentContract, target(name), { files: bundle });
        const params = { protocolVersion, controllerVersion: version, host: name };
        const { recovered } = await agent.client.call('hello', params, { timeoutMs });
        const sentAtNs = process.hrtime.bigint();
        const { monotonicNs } = await agent.client.call('clock', {}, { timeoutMs });
        const clockOffsetNs = monotonicNs - (sentAtNs + process.hrtime.bigint()) / 2n;
        return { name, agent, recovered, clockOffsetNs, stops: [], storing: Promise.resolve() };
      }),
    );
    const walk = new BarrierWalk(walked, options);
    for (const { name, agent } of walked) {
      agent.client.onNotification('barrierLost', ({ reason }) => walk.lost.set(name, reason));
    }
    return walk;
  }

  /** Goes on to a step, keeping the leases alive on the way; once there nobody renews them. */
  async to(step: WalkStep): Promise<void> {
    const renewal = setInterval(() => this.#renew(), this.#leaseMs / 4);
    try {
      while (this.#done <= walkSteps.indexOf(step)) await this.#go(walkSteps[this.#done++]!);
    } finally {
      clearInterval(renewal);
    }
  }

  /** Seals the part of one host only, as if the others failed. */
  async commitOn(name: string): Promise<void> {
    const { client } = this.hosts.find((host) => host.name === name)!.agent;
    await client.call('commit', this.#commitParams(), { timeoutMs });
  }

  async abort(reason: string): Promise<void> {
    const params = { barrier: this.barrier, reason };
    await Promise.all(this.hosts.map(({ agent }) => agent.client.call('abort', params, { timeoutMs })));
  }

  async close(): Promise<void> {
    await Promise.all(this.hosts.map(({ agent }) => agent.close()));
  }

  async #go(step: WalkStep): Promise<void> {
    const { barrier } = this;
    const resumeAtNs = process.hrtime.bigint() + leadNs;
    await Promise.all(
      this.hosts.map(async (host) => {
        const { client } = host.agent;
        const atNs = resumeAtNs + host.clockOffsetNs;
        switch (step) {
          case 'arm':
            this.warnings.push(...(await client.call('arm', this.#armParams(), { timeoutMs })).warnings);
            return;
          case 'cut':
            host.stops = (await client.call('cut', { barrier, atNs }, { timeoutMs })).vms;
            return;
          case 'drain':
            return client.call('drain', { barrier, boundMs: 30_000, quietMs: 2 }, { timeoutMs });
          case 'save':
            return client.call('save', { barrier }, { timeoutMs });
          case 'resume':
            return client.call(
              'resume',
              { barrier, vms: host.stops.map(({ name }) => ({ name, atNs })) },
              { timeoutMs },
            );
          case 'storing':
            // Ends with the agent, or is waited for by "store".
            host.storing = client.call('store', { barrier }, { timeoutMs });
            host.storing.catch(() => undefined);
            return;
          case 'store':
            await Promise.all([host.storing, client.call('settle', { barrier }, { timeoutMs })]);
            return;
          case 'commit':
            return client.call('commit', this.#commitParams(), { timeoutMs });
        }
      }),
    );
  }

  #armParams() {
    const { barrier, snapshot } = this;
    return {
      ...{ barrier, snapshot, experiment: 'walk', vms: null, method: this.#method },
      ...{ leaseMs: this.#leaseMs, frameBufferBytes: 16 * 1024 * 1024 },
      ...{ externalPorts: [], externalFrames: 'hold' as const },
      ...this.#storing,
    };
  }

  #commitParams() {
    const { barrier, snapshot } = this;
    return { barrier, snapshot, experiment: 'walk', createdAt: new Date().toISOString() };
  }

  #renew(): void {
    for (const { agent } of this.hosts) {
      // An agent that was killed is what is being tested.
      agent.client.call('renew', { barrier: this.barrier }, { timeoutMs }).catch(() => undefined);
    }
  }
}
