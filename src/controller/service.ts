import type { ForkInput } from '../protocol/fork.ts';
import type {
  Experiment,
  ExperimentInput,
  ExperimentPort,
  ExperimentVm,
  ImportInput,
  Operation,
  OperationEvent,
  RestoreInput,
  Snapshot,
  SnapshotEdit,
  SnapshotInput,
  StoredFrame,
} from '../protocol/resources.ts';
import type { PruneInput } from '../protocol/prune.ts';
import type { Rolling, RollingInput } from '../protocol/rolling.ts';
import type { SnapshotFilter } from './snapshots/snapshot-filter.ts';

/**
 * What the controller offers to the API, and nothing else. Every method throws StaghornError. Long work returns
 * an operation at once and goes on by itself.
 */
export interface StaghornService {
  health(): Health;

  addExperiment(input: ExperimentInput): Promise<Experiment>;
  listExperiments(): Experiment[];
  getExperiment(name: string): Experiment;
  /** Forgets it. `destroy`, of a fork: ends its VMs first, and removes all that it has on its hosts. */
  removeExperiment(name: string, options?: { destroy?: boolean }): Promise<void>;
  listVms(experiment: string, signal?: AbortSignal): Promise<ExperimentVm[]>;
  listPorts(experiment: string, signal?: AbortSignal): Promise<ExperimentPort[]>;
  pauseExperiment(name: string): Operation;
  resumeExperiment(name: string): Operation;

  createSnapshot(experiment: string, input: SnapshotInput): Operation;
  listSnapshots(filter?: SnapshotFilter): Snapshot[];
  getSnapshot(id: string): Snapshot;
  editSnapshot(id: string, edit: SnapshotEdit): Snapshot;
  deleteSnapshot(id: string): Operation;
  restoreSnapshot(id: string, input: RestoreInput): Operation;
  forkSnapshot(id: string, input: ForkInput): Operation;
  verifySnapshot(id: string): Operation;
  readFrames(id: string, signal?: AbortSignal): Promise<StoredFrame[]>;

  pruneExperiment(name: string, input: PruneInput): Operation;
  listRolling(): Rolling[];
  getRolling(experiment: string): Rolling;
  putRolling(experiment: string, input: RollingInput): Rolling;
  removeRolling(experiment: string): void;

  /** One portable archive, as it is made. */
  exportSnapshot(id: string, signal: AbortSignal): AsyncIterable<Buffer>;
  /** Reads such an archive to its end; the snapshot is there when it returns. */
  importSnapshot(
    content: AsyncIterable<Uint8Array>,
    input: ImportInput,
    signal: AbortSignal,
  ): Promise<Snapshot>;

  listOperations(): Operation[];
  getOperation(id: string): Operation;
  /** Asks the operation to stop; it ends as "cancelled", with every VM running, or as what it had become already. */
  cancelOperation(id: string): Operation;
  /** Past events after `afterId`, then new ones until the operation has ended or the signal aborts. */
  operationEvents(
    id: string,
    options: { afterId?: number; signal?: AbortSignal },
  ): AsyncIterable<OperationEvent>;

  /** Text for GET /metrics: counters and histograms in the Prometheus exposition format. */
  metrics(): Promise<string>;
}

export interface Health {
  readonly status: 'ok';
  readonly version: string;
  readonly uptimeS: number;
  readonly experiments: number;
  readonly operationsRunning: number;
}
