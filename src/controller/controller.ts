import { randomBytes } from 'node:crypto';

import { StaghornError } from '../errors/index.ts';
import type { Logger } from '../protocol/logger.ts';
import { newSnapshotId } from '../protocol/names.ts';
import { fromProblem } from '../protocol/problem.ts';
import type { PruneInput } from '../protocol/prune.ts';
import type { ForkInput } from '../protocol/fork.ts';
import {
  snapshot as snapshotSchema,
  type Experiment,
  type ExperimentInput,
  type ExperimentPort,
  type ExperimentVm,
  type ImportInput,
  type Operation,
  type OperationEvent,
  type RestoreInput,
  type Snapshot,
  type SnapshotEdit,
  type SnapshotInput,
  type StoredFrame,
} from '../protocol/resources.ts';
import type { Rolling, RollingInput } from '../protocol/rolling.ts';
import { version } from '../protocol/version.ts';
import type { AgentPool } from './hosts/agent-pool.ts';
import type { Catalog, StoredSnapshot } from './catalog/catalog.ts';
import { exportSnapshot } from './transfers/export-snapshot.ts';
import { Experiments } from './experiments.ts';
import { forkSnapshot } from './forks/fork-snapshot.ts';
import { importSnapshot } from './transfers/import-snapshot.ts';
import { Metrics } from './metrics.ts';
import { Operations, type OperationStart } from './operations.ts';
import { Pauses, type StandingTools } from './snapshots/pauses.ts';
import { destroyFork } from './forks/remove-fork.ts';
import { restoreSnapshot } from './restores/restore-snapshot.ts';
import { verifySnapshot } from './snapshots/verify-snapshot.ts';
import { RollingSnapshots, type RollingWork } from './snapshots/rolling.ts';
import type { Health, StaghornService } from './service.ts';
import {
  editSnapshot,
  pruneSnapshots,
  removeSnapshot,
  requireRemovable,
  type CareTools,
} from './snapshots/snapshot-care.ts';
import { fits, type SnapshotFilter } from './snapshots/snapshot-filter.ts';
import { streamedBy } from './transfers/streamed-operation.ts';
import { takeSnapshot } from './snapshots/take-snapshot.ts';

const discoverTimeoutMs = 30_000;
const fileTimeoutMs = 30 * 60_000;

/** The controller: decides, and lets agents act. Each method is told in service.ts. */
export class Controller implements StaghornService {
  readonly #catalog: Catalog;
  readonly #experiments: Experiments;
  readonly #operations: Operations;
  readonly #pauses: Pauses;
  readonly #metrics: Metrics;
  readonly #rolling: RollingSnapshots;
  readonly #startedAtMs = performance.now();

  constructor(catalog: Catalog, pool: AgentPool, log: Logger) {
    this.#catalog = catalog;
    this.#experiments = new Experiments(catalog, pool);
    this.#operations = new Operations(log, (operation) => this.#metrics.operationEnded(operation));
    this.#pauses = new Pauses(this.#experiments, log);
    this.#rolling = new RollingSnapshots(catalog, this.#rollingWork(), log);
    this.#rolling.start();
    this.#metrics = new Metrics({
      experiments: () => catalog.listExperiments().length,
      operationsRunning: () => this.#running(),
    });
  }

  /** What may end standing. */
  get #standing(): StandingTools {
    return { experiments: this.#experiments, pauses: this.#pauses };
  }

  get #tools(): CareTools {
    return { experiments: this.#experiments, operations: this.#operations, catalog: this.#catalog };
  }

  /** Ends what is under way, each with every VM running. */
  async close(): Promise<void> {
    const rolling = this.#rolling.close();
    await this.#operations.close();
    await rolling;
    await this.#pauses.close();
  }

  health(): Health {
    return {
      status: 'ok',
      version,
      uptimeS: Math.round((performance.now() - this.#startedAtMs) / 1000),
      experiments: this.#catalog.listExperiments().length,
      operationsRunning: this.#running(),
    };
  }

  async addExperiment(input: ExperimentInput): Promise<Experiment> {
    return this.#experiments.add(input);
  }

  listExperiments(): Experiment[] {
    return this.#experiments.list();
  }

  getExperiment(name: string): Experiment {
    return this.#experiments.get(name);
  }

  async removeExperiment(name: string, { destroy = false } = {}): Promise<void> {
    if (destroy) await destroyFork(this.#standing, name);
    else this.#experiments.remove(name);
  }

  async listVms(experiment: string, signal?: AbortSignal): Promise<ExperimentVm[]> {
    const hosts = await this.#experiments.connect(experiment);
    const perHost = await Promise.all(
      hosts.map(async ({ name: host, link, vms: names }) => {
        const { vms } = await link.call('discover', { vms: names && [...names] }, discoverTimeoutMs, signal);
        return vms.map((vm) => ({ host, ...vm }));
      }),
    );
    return perHost.flat();
  }

  async listPorts(experiment: string, signal?: AbortSignal): Promise<ExperimentPort[]> {
    const hosts = await this.#experiments.connect(experiment);
    const perHost = await Promise.all(
      hosts.map(async ({ name: host, link, vms: names }) => {
        const { ports } = await link.call('ports', { vms: names && [...names] }, discoverTimeoutMs, signal);
        return ports.map((port) => ({ host, ...port }));
      }),
    );
    return perHost.flat();
  }

  pauseExperiment(name: string): Operation {
    const end = this.#experiments.begin(name, 'paused');
    return this.#operations.start({
      kind: 'pause',
      experiment: name,
      snapshot: null,
      work: async (context) => {
        await this.#pauses.pause(name, context, end);
        return null;
      },
    });
  }

  resumeExperiment(name: string): Operation {
    this.#experiments.get(name);
    if (!this.#pauses.isPaused(name)) throw this.#pauses.notPaused(name);
    return this.#operations.start({
      kind: 'resume',
      experiment: name,
      snapshot: null,
      work: async () => {
        const startedAtNs = process.hrtime.bigint();
        const resumedNs = await this.#pauses.resume(name);
        return { experiment: name, durationMs: Number((resumedNs ?? startedAtNs) - startedAtNs) / 1e6 };
      },
    });
  }

  createSnapshot(experiment: string, input: SnapshotInput): Operation {
    const name = input.name ?? null;
    if (name !== null && this.#catalog.findSnapshotByName(experiment, name) !== null) {
      throw new StaghornError('conflict', `experiment ${experiment} has a snapshot named ${name} already`);
    }
    const end = this.#experiments.begin(experiment, 'snapshotting');
    const now = new Date();
    const head = {
      id: newSnapshotId(now, randomBytes(3).toString('hex')),
      experiment,
      name,
      description: input.description ?? null,
      labels: input.labels,
      parent: this.#sealedMomentOf(experiment),
      createdAt: now.toISOString(),
    };
    return this.#operations.start({
      kind: 'snapshot',
      experiment,
      snapshot: head.id,
      work: async (context) => {
        try {
          const snapshot = await takeSnapshot(this.#tools, head, input, context);
          this.#metrics.snapshotTaken(snapshot);
          return snapshot;
        } finally {
          end();
        }
      },
    });
  }

  listSnapshots(filter: SnapshotFilter = {}): Snapshot[] {
    if (filter.experiment !== undefined) this.#experiments.get(filter.experiment);
    return this.#catalog
      .listSnapshots()
      .map(({ snapshot }) => snapshot)
      .filter((snapshot) => fits(snapshot, filter));
  }

  editSnapshot(id: string, edit: SnapshotEdit): Snapshot {
    return editSnapshot(this.#catalog, this.#requireSnapshot(id), edit);
  }

  getSnapshot(id: string): Snapshot {
    return this.#requireSnapshot(id).snapshot;
  }

  deleteSnapshot(id: string): Operation {
    const { snapshot } = this.#requireSnapshot(id);
    requireRemovable(this.#tools, snapshot);
    return this.#startOn(snapshot, 'delete', async ({ signal }) => {
      await removeSnapshot(this.#tools, snapshot, signal);
      return null;
    });
  }

  pruneExperiment(name: string, input: PruneInput): Operation {
    this.#experiments.get(name);
    this.#experiments.requireNo(name, 'restoring');
    this.#experiments.requireNo(name, 'snapshotting');
    return this.#operations.start({
      kind: 'prune',
      experiment: name,
      snapshot: null,
      work: (context) => pruneSnapshots(this.#tools, name, input, context),
    });
  }

  listRolling(): Rolling[] {
    return this.#rolling.list();
  }

  getRolling(experiment: string): Rolling {
    this.#experiments.get(experiment);
    return this.#rolling.get(experiment);
  }

  putRolling(experiment: string, input: RollingInput): Rolling {
    this.#experiments.get(experiment);
    return this.#rolling.put(experiment, input);
  }

  removeRolling(experiment: string): void {
    this.#rolling.remove(experiment);
  }

  restoreSnapshot(id: string, input: RestoreInput): Operation {
    const stored = this.#requireSealed(id);
    const end = this.#experiments.begin(stored.snapshot.experiment, 'restoring');
    return this.#startOn(stored.snapshot, 'restore', async (context) => {
      const result = await restoreSnapshot(this.#standing, stored, input, context, end);
      if (!input.dryRun) this.#catalog.setMoment(stored.snapshot.experiment, id);
      return result;
    });
  }

  forkSnapshot(id: string, input: ForkInput): Operation {
    const stored = this.#requireSealed(id);
    return this.#startOn(stored.snapshot, 'fork', async (context) => {
      const result = await forkSnapshot(this.#standing, stored, input, context);
      for (const { experiment } of result.forks) this.#catalog.setMoment(experiment, id);
      return result;
    });
  }

  verifySnapshot(id: string): Operation {
    const stored = this.#requireSealed(id);
    return this.#startOn(stored.snapshot, 'verify', ({ signal }) =>
      verifySnapshot(this.#experiments, stored, signal),
    );
  }

  async readFrames(id: string, signal?: AbortSignal): Promise<StoredFrame[]> {
    const { snapshot, manifests } = this.#requireSealed(id);
    const hosts = await this.#experiments.connect(snapshot.experiment, new Set(Object.keys(manifests)));
    const perHost = await Promise.all(
      hosts.map(async ({ name: host, link }) => {
        const { frames } = await link.call('frames', { snapshot: id }, fileTimeoutMs, signal);
        return frames.map((frame) => ({ host, ...frame, length: Buffer.from(frame.data, 'base64').length }));
      }),
    );
    return perHost.flat().sort((a, b) => a.offsetNs - b.offsetNs);
  }

  exportSnapshot(id: string, signal: AbortSignal): AsyncIterable<Buffer> {
    const stored = this.#requireSealed(id);
    const { snapshot } = stored;
    return streamedBy(
      this.#operations,
      { kind: 'export', experiment: snapshot.experiment, snapshot: id },
      (given) => exportSnapshot(this.#experiments, stored, AbortSignal.any([given, signal])),
    );
  }

  async importSnapshot(
    content: AsyncIterable<Uint8Array>,
    input: ImportInput,
    signal: AbortSignal,
  ): Promise<Snapshot> {
    this.#experiments.get(input.experiment);
    const { id } = this.#operations.start({
      kind: 'import',
      experiment: input.experiment,
      snapshot: null,
      work: (context) => {
        const both = AbortSignal.any([context.signal, signal]);
        return importSnapshot(this.#tools, content, input, { ...context, signal: both });
      },
    });
    const { result, error } = await this.#operations.ended(id);
    if (error !== null) throw fromProblem(error);
    return snapshotSchema.parse(result);
  }

  listOperations(): Operation[] {
    return this.#operations.list();
  }

  getOperation(id: string): Operation {
    return this.#operations.get(id);
  }

  cancelOperation(id: string): Operation {
    return this.#operations.cancel(id);
  }

  operationEvents(
    id: string,
    options: { afterId?: number; signal?: AbortSignal },
  ): AsyncIterable<OperationEvent> {
    return this.#operations.events(id, options);
  }

  metrics(): Promise<string> {
    return this.#metrics.registry.metrics();
  }

  /** The moment that a snapshot taken now comes from: the nearest that is whole. */
  #sealedMomentOf(experiment: string): string | null {
    let id = this.#catalog.momentOf(experiment);
    while (id !== null) {
      const snapshot = this.#catalog.lineageOf(id);
      if (snapshot?.state === 'sealed') return id;
      id = snapshot?.parent ?? null;
    }
    return null;
  }

  /** What a beat of rolling snapshots does: the same operations that people start. */
  #rollingWork(): RollingWork {
    const requireEnd = async (started: Operation): Promise<Operation> => {
      const ended = await this.#operations.ended(started.id);
      if (ended.error !== null) throw fromProblem(ended.error);
      return ended;
    };
    return {
      isFree: (experiment) => this.#experiments.get(experiment).state === 'running',
      take: async (experiment, input) => {
        const { snapshot } = await requireEnd(this.createSnapshot(experiment, input));
        return this.getSnapshot(snapshot!);
      },
      remove: async ({ id }) => {
        await requireEnd(this.deleteSnapshot(id));
      },
    };
  }

  #startOn(snapshot: Snapshot, kind: OperationStart['kind'], work: OperationStart['work']): Operation {
    return this.#operations.start({ kind, experiment: snapshot.experiment, snapshot: snapshot.id, work });
  }

  #requireSnapshot(id: string): StoredSnapshot {
    const stored = this.#catalog.findSnapshot(id);
    if (stored === null) throw new StaghornError('not-found', `there is no snapshot ${id}`);
    return stored;
  }

  #requireSealed(id: string): StoredSnapshot {
    const stored = this.#requireSnapshot(id);
    if (stored.snapshot.state === 'sealed') return stored;
    throw new StaghornError('wrong-state', `snapshot ${id} is not sealed: it is ${stored.snapshot.state}`);
  }

  #running(): number {
    return this.#operations.list().filter(({ state }) => state === 'running').length;
  }
}
