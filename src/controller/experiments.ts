import { StaghornError } from '../errors/index.ts';
import type { Experiment, ExternalFrames } from '../protocol/resources.ts';
import type { AgentPool } from './hosts/agent-pool.ts';
import { defaultFrameBufferBytes, type BarrierHost } from './hosts/agent-barrier.ts';
import { exchangesOf, exchangingMax } from './hosts/clock-offset.ts';
import { offsetsByUtc } from './hosts/utc-offsets.ts';
import { Turns } from './hosts/turns.ts';
import type { Catalog, ExperimentDefinition, StoredExperiment } from './catalog/catalog.ts';

export type Activity = Exclude<Experiment['state'], 'running'>;

/**
 * The registered experiments and what is being done with them.
 * Invariant: at most one activity at a time on an experiment.
 */
export class Experiments {
  readonly #catalog: Catalog;
  readonly #pool: AgentPool;
  readonly #activities = new Map<string, Activity>();

  constructor(catalog: Catalog, pool: AgentPool) {
    this.#catalog = catalog;
    this.#pool = pool;
  }

  add(input: ExperimentDefinition): Experiment {
    const names = input.hosts.map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) !== index);
    if (twice !== undefined) throw new StaghornError('invalid-input', `two hosts are named ${twice}`);
    this.#catalog.addExperiment(input, new Date().toISOString());
    return this.get(input.name);
  }

  list(): Experiment[] {
    return this.#catalog.listExperiments().map((stored) => this.#withState(stored));
  }

  /** @throws StaghornError 'not-found' */
  get(name: string): Experiment {
    const stored = this.#catalog.findExperiment(name);
    if (stored === null) throw new StaghornError('not-found', `there is no experiment ${name}`);
    return this.#withState(stored);
  }

  remove(name: string): void {
    this.requireRemovable(name);
    this.#catalog.removeExperiment(name);
  }

  /** @throws StaghornError 'not-found', 'conflict' */
  requireRemovable(name: string): void {
    this.get(name);
    const activity = this.#activities.get(name);
    if (activity !== undefined) throw busy(name, activity);
    this.requireNoSnapshots(name);
  }

  /** @throws StaghornError 'conflict' */
  requireNoSnapshots(name: string): void {
    const snapshots = this.#catalog.listSnapshots().filter(({ snapshot }) => snapshot.experiment === name);
    if (snapshots.length > 0) {
      throw new StaghornError(
        'conflict',
        `experiment ${name} has ${snapshots.length} snapshots; delete them first`,
      );
    }
  }

  /** Takes the experiment for an activity. @throws StaghornError 'conflict' if it is taken; @returns how to end it */
  begin(name: string, activity: Activity): () => void {
    this.get(name);
    const other = this.#activities.get(name);
    if (other !== undefined) throw busy(name, other);
    this.#activities.set(name, activity);
    let isOpen = true;
    return () => {
      if (isOpen) this.#activities.delete(name);
      isOpen = false;
    };
  }

  /** What is being done with an experiment that is taken turns into something else. */
  become(name: string, activity: Activity): void {
    // It may have ended meanwhile.
    if (this.#activities.has(name)) this.#activities.set(name, activity);
  }

  /** @throws StaghornError 'conflict' while that is being done with the experiment */
  requireNo(name: string, activity: Activity): void {
    if (this.#activities.get(name) === activity) throw busy(name, activity);
  }

  externalFramesOf(name: string): ExternalFrames {
    return this.get(name).externalFrames ?? 'hold';
  }

  /**
   * Connects to the hosts (all, or the named ones) and measures their clocks.
   * @param clocks 'known': what is known of them will do, for nothing has to happen at one instant on two of them
   */
  async connect(
    name: string,
    only?: ReadonlySet<string>,
    clocks: 'measured' | 'known' = 'measured',
  ): Promise<BarrierHost[]> {
    const { hosts, transport, frameBufferBytes = defaultFrameBufferBytes } = this.get(name);
    const specs = hosts.filter((host) => only === undefined || only.has(host.name));
    const links = await this.#pool.connectAll(specs, transport);
    const turns = new Turns(exchangingMax);
    const measured = await Promise.all(
      links.map((link) =>
        turns.take(() =>
          clocks === 'known' ? link.knownClock() : link.measureClock(exchangesOf(specs.length)),
        ),
      ),
    );
    const offsets = offsetsByUtc(measured);
    return links.map((link, index): BarrierHost => {
      const { name: host, vms = null, external = [] } = specs[index]!;
      return { name: host, link, vms, externalPorts: external, frameBufferBytes, clock: offsets[index]! };
    });
  }

  #withState(stored: StoredExperiment): Experiment {
    const moment = this.#catalog.momentOf(stored.name);
    const state = this.#activities.get(stored.name) ?? 'running';
    return { ...stored, state, ...(moment === null ? {} : { moment }) };
  }
}

const activityText: Readonly<Record<Activity, string>> = {
  snapshotting: 'is being snapshotted',
  paused: 'is paused; resume it first',
  restoring: 'is being restored',
};

function busy(name: string, activity: Activity): StaghornError {
  return new StaghornError('conflict', `experiment ${name} ${activityText[activity]}`);
}
