import { hostname, release } from 'node:os';

import { StaghornError } from '../errors/index.ts';
import { monotonicNs, realtimeErrorNs, realtimeMinusMonotonicNs } from '../native/clock.ts';
import type { Logger } from '../protocol/logger.ts';
import { protocolVersion, type AgentContract, type UtcReading } from '../protocol/rpc.ts';
import { version } from '../protocol/version.ts';
import { SnapshotStore } from '../store/snapshot-directory.ts';
import { disksOf } from '../vmm/disks/collect.ts';
import type { RpcHandlers } from '../transport/rpc.ts';
import { intentDirectory, type AgentDirectories } from './agent-directories.ts';
import { arm } from './snapshot/arm.ts';
import { ChainShortener } from './parts/chain-shortener.ts';
import { checkRestore } from './restore/check-restore.ts';
import { checkFork } from './fork/fork-check.ts';
import { forkDirectory } from './fork/fork-directory.ts';
import { removeFork } from './fork/remove-fork.ts';
import { discoverPorts, discoverVms } from './host-inventory.ts';
import { IntactImages } from './restore/intact-images.ts';
import { IntentJournal } from './session/intent.ts';
import { RestoreSession } from './restore/restore-session.ts';
import { StopSession, type SessionReports } from './snapshot/stop-session.ts';
import { readStoredFrames } from './session/stored-frames.ts';
import { removeUnusedImages, type HostImages } from './parts/unused-images.ts';
import { FlowMemory } from '../network/switches/flow-memory.ts';
import { OpenFlowMemory } from '../network/switches/openflow-memory.ts';
import { SpareGate } from '../network/spare-gate.ts';
import { LayoutMemory } from '../vmm/layout-memory.ts';
import { QemuProbes } from '../vmm/qemu-probe.ts';
import { verifySnapshot } from './parts/verify-snapshot.ts';

/** What the agent tells its controller unasked. */
export interface AgentNotices {
  progress(barrier: string, step: string, doneBytes: number, totalBytes: number): void;
  barrierLost(barrier: string, error: StaghornError): void;
}

export interface AgentParts {
  readonly directories: AgentDirectories;
  readonly notices: AgentNotices;
  readonly log: Logger;
  /** What was recovered when the agent started; null if nothing had to be. */
  readonly recovered: string | null;
}

/** Answers the controller. Barriers under way are kept by their id; each ends itself, whatever happens. */
export class AgentService {
  readonly #parts: AgentParts;
  readonly #store: SnapshotStore;
  readonly #journal: IntentJournal;
  readonly #probes = new QemuProbes();
  readonly #images: HostImages;
  readonly #kept = {
    gate: new SpareGate(),
    openFlow: new OpenFlowMemory(),
    flows: new FlowMemory(),
    layouts: new LayoutMemory(),
    intact: new IntactImages(),
  };
  readonly #chains: ChainShortener;
  readonly #sessions = new Map<string, StopSession | RestoreSession>();

  constructor(parts: AgentParts) {
    this.#parts = parts;
    this.#store = new SnapshotStore(parts.directories.store);
    this.#journal = new IntentJournal(intentDirectory(parts.directories));
    this.#images = { disks: disksOf(this.#store), store: this.#store, log: parts.log };
    this.#chains = new ChainShortener(this.#images);
  }

  /** Ends every barrier under way: the controller is gone. */
  async close(reason: string): Promise<void> {
    await this.#chains.stop();
    const open = [...this.#sessions.values()].filter((session) => session.isOpen);
    await Promise.allSettled(open.map((session) => session.abort(reason)));
    this.#kept.gate.close();
  }

  readonly handlers: RpcHandlers<AgentContract> = {
    hello: (params) => {
      if (params.protocolVersion !== protocolVersion || params.controllerVersion !== version) {
        throw new StaghornError(
          'version-mismatch',
          `the controller is Staghorn ${params.controllerVersion} (protocol ${params.protocolVersion}), ` +
            `the agent ${version} (protocol ${protocolVersion})`,
        );
      }
      return {
        protocolVersion,
        agentVersion: version,
        hostname: hostname(),
        kernel: release(),
        nodeVersion: process.versions.node,
        recovered: this.#parts.recovered,
      };
    },
    clock: () => ({ monotonicNs: monotonicNs(), utc: readUtc() }),
    discover: ({ vms }, { signal }) =>
      this.#chains.yieldTo(async () => ({ vms: await discoverVms(vms, signal) })),
    ports: ({ vms }, { signal }) =>
      this.#chains.yieldTo(async () => ({ ports: await discoverPorts(vms, signal) })),

    arm: async (params, { signal }) => {
      await this.#chains.stop();
      const tools = { ...this.#toolsFor(params.barrier), kept: this.#kept };
      const session = await arm(params, tools, signal);
      this.#sessions.set(params.barrier, session);
      return session.description;
    },
    probe: ({ barrier, ...params }) => this.#session(barrier).probe(params),
    listen: ({ barrier, ...params }) => this.#session(barrier).listen(params),
    schedule: ({ barrier, atNs }) => this.#stopSession(barrier).schedule(atNs),
    recall: ({ barrier }) => {
      this.#stopSession(barrier).recall();
      return {};
    },
    cut: ({ barrier, atNs }) => this.#stopSession(barrier).cut(atNs),
    drain: ({ barrier, ...options }) => this.#stopSession(barrier).drain(options),
    save: ({ barrier }) => this.#stopSession(barrier).save(),
    resume: ({ barrier, vms }) => this.#session(barrier).resume(vms),
    settle: ({ barrier }) => this.#session(barrier).settle(),
    store: ({ barrier }) => this.#stopSession(barrier).store(),
    commit: async (params) => {
      const session = this.#stopSession(params.barrier);
      const sealed = await session.commit(params);
      this.#chains.start(session.longChains);
      return sealed;
    },
    abort: async ({ barrier, reason }) => {
      const session = this.#sessions.get(barrier);
      const aborting = session instanceof StopSession ? session.takeBack(reason) : session?.abort(reason);
      const outcome = (await aborting) ?? 'nothing of this barrier is under way here';
      this.#sessions.delete(barrier);
      return { outcome };
    },
    renew: ({ barrier }) => {
      this.#sessions.get(barrier)?.renew();
      return {};
    },

    restoreCheck: async (params, { signal }) => {
      await this.#chains.stop();
      const { directories } = this.#parts;
      const tools = {
        ...this.#toolsFor(params.barrier),
        ...{ directories, probes: this.#probes, kept: this.#kept },
      };
      const session = await checkRestore(params, tools, signal);
      this.#sessions.set(params.barrier, session);
      return session.description;
    },
    restorePrepare: ({ barrier, elapsedNs }) => this.#restoreSession(barrier).prepare(elapsedNs),

    restoreDrain: ({ barrier, ...options }) => this.#restoreSession(barrier).flush(options),

    forkCheck: (params, { signal }) =>
      checkFork(params, { store: this.#store, directories: this.#parts.directories }, signal),
    forkRemove: async ({ fork }, { signal }) => {
      const vms = await removeFork(forkDirectory(this.#parts.directories, fork), signal);
      await removeUnusedImages(this.#images);
      return { vms };
    },

    verify: (params, { signal }) => verifySnapshot(this.#store, params, signal),
    hasPart: async ({ snapshot, manifestSha256 }) => {
      const isHere = await this.#store.open(snapshot, manifestSha256).then(
        () => true,
        () => false,
      );
      return { isHere };
    },
    removeSnapshot: async ({ snapshot }) => {
      await this.#store.remove(snapshot);
      await removeUnusedImages(this.#images);
      return {};
    },
    frames: async ({ snapshot }) => {
      const manifest = await this.#store.readManifest(snapshot, null);
      const frames = await readStoredFrames(this.#store.pathOf(snapshot), manifest);
      const vmOf = new Map(
        manifest.vms.flatMap(({ name, nics }) => nics.map(({ tap }) => [tap, name] as const)),
      );
      return {
        frames: frames.map(({ port, offsetNs, frame }) => ({
          vm: vmOf.get(port) ?? '',
          tap: port,
          offsetNs: Number(offsetNs),
          data: frame.toString('base64'),
        })),
      };
    },
  };

  #toolsFor(barrier: string) {
    const { notices } = this.#parts;
    if (this.#sessions.get(barrier)?.isOpen === true) {
      throw new StaghornError('wrong-state', `barrier ${barrier} is under way already`);
    }
    // Those that ended are kept until the next one begins: their controller may still ask how they ended.
    for (const [id, session] of this.#sessions) if (!session.isOpen) this.#sessions.delete(id);
    const reports: SessionReports = {
      progress: (step, done, total) => notices.progress(barrier, step, done, total),
      lost: (error) => notices.barrierLost(barrier, error),
    };
    return { ...this.#images, journal: this.#journal, reports };
  }

  #session(barrier: string): StopSession | RestoreSession {
    const session = this.#sessions.get(barrier);
    if (session === undefined) throw new StaghornError('wrong-state', `there is no barrier ${barrier} here`);
    return session;
  }

  #stopSession(barrier: string): StopSession {
    const session = this.#session(barrier);
    if (session instanceof StopSession) return session;
    throw new StaghornError('wrong-state', `barrier ${barrier} is a restore`);
  }

  #restoreSession(barrier: string): RestoreSession {
    const session = this.#session(barrier);
    if (session instanceof RestoreSession) return session;
    throw new StaghornError('wrong-state', `barrier ${barrier} is not a restore`);
  }
}

/** phc2sys tells the kernel 0 (linuxptp, clockadj.c), and readings of two clocks are good to some 100 ns. */
const leastUtcErrorNs = 1_000;

function readUtc(): UtcReading | null {
  const errorNs = realtimeErrorNs();
  if (errorNs === null) return null;
  return { aheadNs: realtimeMinusMonotonicNs(), errorNs: Math.max(errorNs, leastUtcErrorNs) };
}
