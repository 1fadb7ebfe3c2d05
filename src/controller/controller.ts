import { randomBytes } from 'node:crypto';

import { StaghornError } from '../errors/index.ts';
import type { Logger } from '../protocol/logger.ts';
import { newSnapshotId } from '../protocol/names.ts';
import type {
  Experiment,
  ExperimentInput,
  ExperimentPort,
  ExperimentVm,
  ForkInput,
  Operation,
  OperationEvent,
  RestoreInput,
  Snapshot,
  SnapshotInput,
  StoredFrame,
  VerifyResult,
} from '../protocol/resources.ts';
import { version } from '../protocol/version.ts';
import type { AgentPool } from './agent-pool.ts';
import type { Catalog, StoredSnapshot } from './catalog.ts';
import { Experiments } from './experiments.ts';
import { forkSnapshot } from './fork-snapshot.ts';
import { Metrics } from './metrics.ts';
import { Operations, type OperationStart } from './operations.ts';
import { Pauses } from './pauses.ts';
import { destroyFork } from './remove-fork.ts';
import { restoreSnapshot } from './restore-snapshot.ts';
import type { Health, StaghornService } from './service.ts';
import { takeSnapshot } from './take-snapshot.ts';

const discoverTimeoutMs = 30_000;
const fileTimeoutMs = 30 * 60_000;

/** The controller: decides, and lets agents act. Each method is told in service.ts. */
export class Controller implements StaghornService {
  readonly #catalog: Catalog;
  readonly #experiments: Experiments;
  readonly #operations: Operations;
  readonly #pauses: Pauses;
  readonly #metrics: Metrics;
  readonly #startedAtMs = performance.now();

  constructor(catalog: Catalog, pool: AgentPool, log: Logger) {
    this.#catalog = catalog;
    this.#experiments = new Experiments(catalog, pool);
    this.#operations = new Operations(log, (operation) => this.#metrics.operationEnded(operation));
    this.#pauses = new Pauses(this.#experiments, log);
    this.#metrics = new Metrics({
      experiments: () => catalog.listExperiments().length,
      operationsRunning: () => this.#running(),
    });
  }

  /** Ends what is under way, each with every VM running. */
  async close(): Promise<void> {
    await this.#operations.close();
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
    if (destroy) await destroyFork(this.#experiments, name);
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
        await this.#pauses.resume(name);
        return null;
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
      parent: null,
      createdAt: now.toISOString(),
    };
    const tools = { experiments: this.#experiments, catalog: this.#catalog };
    return this.#operations.start({
      kind: 'snapshot',
      experiment,
      snapshot: head.id,
      work: async (context) => {
        try {
          const snapshot = await takeSnapshot(tools, head, input, context);
          this.#metrics.snapshotTaken(snapshot);
          return snapshot;
        } finally {
          end();
        }
      },
    });
  }

  listSnapshots({ experiment }: { experiment?: string } = {}): Snapshot[] {
    if (experiment !== undefined) this.#experiments.get(experiment);
    const all = this.#catalog.listSnapshots().map(({ snapshot }) => snapshot);
    return experiment === undefined ? all : all.filter((snapshot) => snapshot.experiment === experiment);
  }

  getSnapshot(id: string): Snapshot {
    return this.#requireSnapshot(id).snapshot;
  }

  deleteSnapshot(id: string): Operation {
    const { snapshot } = this.#requireSnapshot(id);
    if (snapshot.state === 'storing')
      throw new StaghornError('conflict', `snapshot ${id} is being taken; cancel that`);
    this.#experiments.requireNo(snapshot.experiment, 'restoring');
    return this.#startOn(snapshot, 'delete', async ({ signal }) => {
      const hosts = await this.#experiments.connect(snapshot.experiment);
      await Promise.all(
        hosts.map(({ link }) => link.call('removeSnapshot', { snapshot: id }, fileTimeoutMs, signal)),
      );
      this.#catalog.removeSnapshot(id);
      return null;
    });
  }

  restoreSnapshot(id: string, input: RestoreInput): Operation {
    const stored = this.#requireSealed(id);
    const end = this.#experiments.begin(stored.snapshot.experiment, 'restoring');
    return this.#startOn(stored.snapshot, 'restore', async (context) => {
      try {
        return await restoreSnapshot(this.#experiments, stored, input, context);
      } finally {
        end();
      }
    });
  }

  forkSnapshot(id: string, input: ForkInput): Operation {
    const stored = this.#requireSealed(id);
    return this.#startOn(stored.snapshot, 'fork', (context) =>
      forkSnapshot(this.#experiments, stored, input, context),
    );
  }

  verifySnapshot(id: string): Operation {
    const { snapshot, manifests } = this.#requireSealed(id);
    return this.#startOn(snapshot, 'verify', async ({ signal }): Promise<VerifyResult> => {
      const hosts = await this.#experiments.connect(snapshot.experiment, new Set(Object.keys(manifests)));
      const results = await Promise.all(
        hosts.map(async ({ name, link }) => {
          const params = { snapshot: id, manifestSha256: manifests[name] ?? null };
          const { bytes, problems } = await link.call('verify', params, fileTimeoutMs, signal);
          return { bytes, problems: problems.map((problem) => `host ${name}: ${problem}`) };
        }),
      );
      const problems = results.flatMap((result) => result.problems);
      const bytes = results.reduce((sum, result) => sum + result.bytes, 0);
      return { snapshot: id, ok: problems.length === 0, bytes, problems };
    });
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
