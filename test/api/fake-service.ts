import type { Health, StaghornService } from '../../src/controller/service.ts';
import { StaghornError } from '../../src/errors/index.ts';
import type { ForkInput } from '../../src/protocol/fork.ts';
import {
  snapshot,
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
} from '../../src/protocol/resources.ts';
import { selectForPruning } from '../../src/controller/snapshots/prune.ts';
import { fits, type SnapshotFilter } from '../../src/controller/snapshots/snapshot-filter.ts';
import type { PruneInput } from '../../src/protocol/prune.ts';
import type { Rolling, RollingInput } from '../../src/protocol/rolling.ts';
import { FakeOperations } from './fake-operations.ts';
import { makeFrame, makeSnapshot, makeVm } from './samples.ts';

/** The controller's border in memory: what it answers is logic of its own, what it "does" happens at once or on a test's word. */
export class FakeService implements StaghornService {
  readonly operations = new FakeOperations();
  readonly calls: string[] = [];
  /** Operations end by themselves, with a step of progress before. */
  finishAtOnce = true;
  /** Status of each VM of each experiment; "running" VMs are in the way of a restore. */
  vmStatus = 'running';
  /** Thrown by listVms. */
  hostError: StaghornError | null = null;
  /** Thrown in the middle of an export. */
  streamError: StaghornError | null = null;
  verifyProblems: string[] = [];
  restoreWarnings: string[] = [];
  readonly #experiments = new Map<string, Experiment>();
  readonly #snapshots = new Map<string, Snapshot>();
  readonly #rolling = new Map<string, Rolling>();

  health(): Health {
    const operationsRunning = this.listOperations().filter(({ state }) => state === 'running').length;
    return {
      status: 'ok',
      version: '0.1.0',
      uptimeS: 1.5,
      experiments: this.#experiments.size,
      operationsRunning,
    };
  }

  async addExperiment(input: ExperimentInput): Promise<Experiment> {
    if (this.#experiments.has(input.name)) {
      throw new StaghornError('conflict', `There is an experiment "${input.name}" already`);
    }
    const added: Experiment = { ...input, createdAt: new Date().toISOString(), state: 'running' };
    this.#experiments.set(input.name, added);
    return added;
  }

  listExperiments(): Experiment[] {
    return [...this.#experiments.values()];
  }

  getExperiment(name: string): Experiment {
    const found = this.#experiments.get(name);
    if (found === undefined) throw new StaghornError('not-found', `There is no experiment "${name}"`);
    return found;
  }

  async removeExperiment(name: string, { destroy = false } = {}): Promise<void> {
    this.getExperiment(name);
    if (destroy) this.calls.push(`destroy ${name}`);
    this.#experiments.delete(name);
  }

  async listVms(experiment: string): Promise<ExperimentVm[]> {
    if (this.hostError !== null) throw this.hostError;
    return this.getExperiment(experiment).hosts.map(({ name }) => makeVm(name, this.vmStatus));
  }

  async listPorts(experiment: string): Promise<ExperimentPort[]> {
    const vms = await this.listVms(experiment);
    return vms.flatMap((vm) =>
      vm.nics.map(({ tap, mac, model, mtu, switchPort }) => ({
        host: vm.host,
        vm: vm.name,
        tap,
        mac,
        model,
        mtu,
        switchPort,
      })),
    );
  }

  pauseExperiment(name: string): Operation {
    return this.#begin('pause', { experiment: this.getExperiment(name).name }, () => null);
  }

  resumeExperiment(name: string): Operation {
    const { state } = this.getExperiment(name);
    if (state === 'snapshotting') throw new StaghornError('wrong-state', `"${name}" is in a snapshot`);
    return this.#begin('resume', { experiment: name }, () => null);
  }

  createSnapshot(experiment: string, input: SnapshotInput): Operation {
    this.calls.push(`createSnapshot ${experiment} ${JSON.stringify(input)}`);
    const found = this.getExperiment(experiment);
    if (found.state === 'snapshotting')
      throw new StaghornError('conflict', `"${experiment}" is in a snapshot already`);
    return this.#begin('snapshot', { experiment }, () => this.addSnapshot({ experiment, ...named(input) }));
  }

  addSnapshot(given: Partial<Snapshot> = {}): Snapshot {
    const made = makeSnapshot(this.#snapshots.size + 1, given);
    this.#snapshots.set(made.id, made);
    return made;
  }

  listSnapshots(filter: SnapshotFilter = {}): Snapshot[] {
    return [...this.#snapshots.values()].filter((one) => fits(one, filter));
  }

  editSnapshot(id: string, { labels = {}, ...edit }: SnapshotEdit): Snapshot {
    const before = this.getSnapshot(id);
    const given = Object.entries({ ...before.labels, ...labels }).flatMap(([key, value]) =>
      value === null ? [] : [[key, value]],
    );
    const edited = { ...before, ...edit, labels: Object.fromEntries(given) as Record<string, string> };
    this.#snapshots.set(id, edited);
    return edited;
  }

  pruneExperiment(name: string, input: PruneInput): Operation {
    this.calls.push(`pruneExperiment ${name} ${JSON.stringify(input)}`);
    const { experiment } = { experiment: this.getExperiment(name).name };
    const all = this.listSnapshots({ experiment });
    const { removed, kept } = selectForPruning(all, input);
    return this.#begin('prune', { experiment }, () => ({
      removed: removed.map(({ id }) => id),
      kept: kept.map(({ snapshot, reasons }) => ({ snapshot: snapshot.id, reasons })),
    }));
  }

  async *exportSnapshot(id: string): AsyncGenerator<Buffer, void, undefined> {
    if (this.hostError !== null) throw this.hostError;
    yield Buffer.from(JSON.stringify(this.getSnapshot(id)));
    if (this.streamError !== null) throw this.streamError;
  }

  async importSnapshot(content: AsyncIterable<Uint8Array>, input: ImportInput): Promise<Snapshot> {
    this.calls.push(`importSnapshot ${JSON.stringify(input)}`);
    const chunks: Uint8Array[] = [];
    for await (const chunk of content) chunks.push(chunk);
    const given = snapshot.safeParse(JSON.parse(Buffer.concat(chunks).toString() || 'null'));
    if (!given.success) throw new StaghornError('snapshot-damaged', 'This is no archive');
    return this.addSnapshot({ ...given.data, experiment: this.getExperiment(input.experiment).name });
  }

  listRolling(): Rolling[] {
    return [...this.#rolling.values()];
  }

  getRolling(experiment: string): Rolling {
    const found = this.#rolling.get(this.getExperiment(experiment).name);
    if (found === undefined)
      throw new StaghornError('not-found', `"${experiment}" takes no rolling snapshots`);
    return found;
  }

  putRolling(experiment: string, input: RollingInput): Rolling {
    this.getExperiment(experiment);
    const plan: Rolling = {
      ...input,
      experiment,
      nextAt: '2026-11-22T15:12:00.000Z',
      taken: 0,
      skipped: 0,
      lastSnapshot: null,
      lastError: null,
    };
    this.#rolling.set(experiment, plan);
    return plan;
  }

  removeRolling(experiment: string): void {
    this.getRolling(experiment);
    this.#rolling.delete(experiment);
  }

  getSnapshot(id: string): Snapshot {
    const found = this.#snapshots.get(id);
    if (found === undefined) throw new StaghornError('not-found', `There is no snapshot "${id}"`);
    return found;
  }

  deleteSnapshot(id: string): Operation {
    const { experiment } = this.getSnapshot(id);
    return this.#begin('delete', { experiment, snapshot: id }, () => {
      this.#snapshots.delete(id);
      return null;
    });
  }

  restoreSnapshot(id: string, input: RestoreInput): Operation {
    this.calls.push(`restoreSnapshot ${id} ${JSON.stringify(input)}`);
    const { experiment, vms } = this.getSnapshot(id);
    if (this.vmStatus === 'running' && !input.replace && !input.dryRun) {
      throw new StaghornError(
        'conflict',
        `VMs of "${experiment}" are running; "replace": true destroys them`,
      );
    }
    const result = {
      snapshot: id,
      durationMs: 123.4,
      vms: vms.length,
      framesDelivered: 1,
      dryRun: input.dryRun,
      paused: input.paused,
      destroyed: [],
      clock: null,
      warnings: this.restoreWarnings,
    };
    return this.#begin('restore', { experiment, snapshot: id }, () => result);
  }

  forkSnapshot(id: string, input: ForkInput): Operation {
    this.calls.push(`forkSnapshot ${id} ${JSON.stringify(input)}`);
    const { experiment, vms } = this.getSnapshot(id);
    const forks = Array.from({ length: input.count }, (_, place) => ({
      experiment: `${input.name ?? `${experiment}-fork`}-${place + 1}`,
      durationMs: 100 + place,
      vms: vms.map(({ host, name }) => ({ host, name: `${name}.f${place + 1}` })),
      framesDelivered: 1,
      warnings: this.restoreWarnings,
    }));
    const result = { snapshot: id, durationMs: 123.4, forks, warnings: [] };
    return this.#begin('fork', { experiment, snapshot: id }, () => result);
  }

  verifySnapshot(id: string): Operation {
    const { experiment, bytes } = this.getSnapshot(id);
    const problems = this.verifyProblems;
    return this.#begin('verify', { experiment, snapshot: id }, () => ({
      snapshot: id,
      ok: problems.length === 0,
      bytes,
      problems,
    }));
  }

  async readFrames(id: string): Promise<StoredFrame[]> {
    return this.getSnapshot(id).vms.map(({ host, name }) => makeFrame(host, name));
  }

  listOperations(): Operation[] {
    return this.operations.list();
  }

  getOperation(id: string): Operation {
    return this.operations.get(id);
  }

  cancelOperation(id: string): Operation {
    this.operations.end(id, { error: new StaghornError('cancelled', 'It was cancelled') });
    return this.operations.get(id);
  }

  operationEvents(
    id: string,
    options: { afterId?: number; signal?: AbortSignal },
  ): AsyncIterable<OperationEvent> {
    return this.operations.events(id, options);
  }

  async metrics(): Promise<string> {
    return '# TYPE staghorn_snapshots_total counter\nstaghorn_snapshots_total 0\n';
  }

  #begin(
    kind: Operation['kind'],
    about: { experiment?: string; snapshot?: string },
    work: () => Operation['result'],
  ): Operation {
    const begun = this.operations.begin(kind, about);
    if (this.finishAtOnce) {
      this.operations.progress(begun.id, {
        step: kind,
        message: `${kind} begins`,
        doneBytes: 1024,
        totalBytes: 4096,
      });
      const answer = structuredClone(begun);
      this.operations.end(begun.id, { result: work() });
      return answer;
    }
    return begun;
  }
}

function named({ name, description }: SnapshotInput): Partial<Snapshot> {
  return { name: name ?? null, description: description ?? null };
}
