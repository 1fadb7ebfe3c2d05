import { StaghornError } from '../errors/index.ts';
import { addresseesBySegment } from '../protocol/marker-addressees.ts';
import { protocolVersion, type AgentContract, type AgentParams, type AgentResult } from '../protocol/rpc.ts';
import type { Time } from '../protocol/time.ts';
import { version } from '../protocol/version.ts';
import type { RpcHandlers } from '../transport/rpc.ts';
import type { HostObserver, SimulatedHost } from './host.ts';
import type { Random } from './random.ts';
import { SimulatedSession } from './session.ts';

export interface AgentParts {
  readonly host: SimulatedHost;
  /** The host's clock, as long as this agent lives. */
  readonly time: Time;
  readonly random: Random;
  readonly observer: HostObserver;
  readonly barrierLost: (barrier: string, error: StaghornError) => void;
}

/** Longer than the controller waits for it. */
const longestArmMs = 25_000;

/** Answers a controller as an agent does (src/agent/agent-service.ts). Restores are not simulated. */
export class SimulatedAgent {
  readonly #parts: AgentParts;
  readonly #sessions = new Map<string, SimulatedSession>();

  constructor(parts: AgentParts) {
    this.#parts = parts;
  }

  /** The controller is gone. */
  close(reason: string): void {
    for (const session of this.#sessions.values()) if (session.isOpen) void session.abort(reason);
  }

  /** A VM of the host died. */
  failVm(): void {
    for (const session of this.#sessions.values()) if (session.isOpen) session.giveUp('a VM ended');
  }

  readonly handlers: RpcHandlers<AgentContract> = {
    hello: () => ({
      ...{ protocolVersion, agentVersion: version, hostname: this.#parts.host.name },
      ...{ kernel: '6.1', nodeVersion: process.versions.node, recovered: null },
    }),
    clock: () => ({ monotonicNs: this.#parts.time.nowNs(), utc: this.#parts.host.utc() }),
    discover: () => ({ vms: [] }),
    ports: () => ({ ports: [] }),
    arm: (params, { signal }) => this.#arm(params, signal),
    probe: ({ barrier, targets }) => this.#session(barrier).probe(targets),
    listen: ({ barrier }) => this.#session(barrier).listen(),
    schedule: ({ barrier, atNs }) => this.#session(barrier).schedule(atNs),
    recall: ({ barrier }) => {
      this.#session(barrier).recall();
      return {};
    },
    cut: ({ barrier, atNs }) => this.#session(barrier).cut(atNs),
    drain: ({ barrier }) => this.#session(barrier).drain(),
    save: ({ barrier }) => this.#session(barrier).save(),
    resume: ({ barrier, vms }) => this.#session(barrier).resume(vms),
    settle: ({ barrier }) => this.#session(barrier).settle(),
    store: ({ barrier }) => this.#session(barrier).store(),
    commit: ({ barrier, snapshot }) => this.#session(barrier).commit(snapshot),
    abort: async ({ barrier, reason }) => {
      const outcome = await this.#sessions.get(barrier)?.abort(reason);
      this.#sessions.delete(barrier);
      return { outcome: outcome ?? 'nothing of this barrier is under way here' };
    },
    renew: ({ barrier }) => {
      this.#sessions.get(barrier)?.renew();
      return {};
    },
    restoreCheck: notSimulated,
    restorePrepare: notSimulated,
    restoreDrain: notSimulated,
    verify: notSimulated,
    removeSnapshot: ({ snapshot }) => {
      this.#parts.host.parts.delete(snapshot);
      return {};
    },
    frames: () => ({ frames: [] }),
    hasPart: notSimulated,
    forkCheck: notSimulated,
    forkRemove: notSimulated,
  };

  async #arm(params: AgentParams<'arm'>, signal: AbortSignal): Promise<AgentResult<'arm'>> {
    const { host, time, random, observer, barrierLost } = this.#parts;
    const { barrier, snapshot } = params;
    if (host.taken !== null) {
      throw new StaghornError('vm-unfit', `host ${host.name}: another client has the VMs' QMP sockets`);
    }
    host.taken = barrier;
    const armMs = Math.min(random.delay(10) * host.slowness, longestArmMs);
    await new Promise<void>((resolve) => {
      time.after(armMs, resolve);
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
    if (signal.aborted) {
      host.taken = null;
      throw signal.reason;
    }
    const onLost = (error: StaghornError) => barrierLost(barrier, error);
    this.#sessions.set(barrier, new SimulatedSession({ host, time, random, observer, params, onLost }));
    if (snapshot !== null) host.parts.set(snapshot, 'partial');
    observer.armed(barrier, host.name);
    return { ports: [...addresseesBySegment(host.ports).values()].flat(), warnings: [] };
  }

  #session(barrier: string): SimulatedSession {
    const session = this.#sessions.get(barrier);
    if (session === undefined) throw new StaghornError('wrong-state', `there is no barrier ${barrier} here`);
    return session;
  }
}

function notSimulated(): never {
  throw new StaghornError('wrong-state', 'a simulated host restores nothing');
}
