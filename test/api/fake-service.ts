import type { Health, StaghornService } from '../../src/controller/service.ts';
import { StaghornError } from '../../src/errors/index.ts';
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
} from '../../src/protocol/resources.ts';
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
  verifyProblems: string[] = [];
  restoreWarnings: string[] = [];
  readonly #experiments = new Map<string, Experiment>();
  readonly #snapshots = new Map<string, Snapshot>();

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

  listSnapshots(filter: { experiment?: string } = {}): Snapshot[] {
    const { experiment } = filter;
    return [...this.#snapshots.values()].filter(
      (one) => experiment === undefined || one.experiment === experiment,
    );
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
    if (this.vmStatus === 'running' && !input.replace) {
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
