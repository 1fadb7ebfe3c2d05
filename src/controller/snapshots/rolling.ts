import { asStaghornError, StaghornError } from '../../errors/index.ts';
import type { Logger } from '../../protocol/logger.ts';
import { toProblem } from '../../protocol/problem.ts';
import { snapshotInput, type Snapshot, type SnapshotInput } from '../../protocol/resources.ts';
import { rollingLabel, type Rolling, type RollingInput } from '../../protocol/rolling.ts';
import type { Catalog } from '../catalog/catalog.ts';
import { keepLabel } from './prune.ts';

/** What a beat does; each ends when it is done, and throws StaghornError. */
export interface RollingWork {
  /** False: something else is being done with the experiment. */
  isFree(experiment: string): boolean;
  take(experiment: string, input: SnapshotInput): Promise<Snapshot>;
  remove(snapshot: Snapshot): Promise<void>;
}

/**
 * Snapshots that are taken again and again. Plans are in the catalog: they go on after the controller was restarted,
 * and a beat that was missed meanwhile is made up for at once.
 * Invariants: an experiment has one plan at most and one beat under way at most; a beat removes nothing but snapshots
 * that carry the rolling label and have neither a name nor the label "keep".
 */
export class RollingSnapshots {
  readonly #catalog: Catalog;
  readonly #work: RollingWork;
  readonly #log: Logger;
  readonly #timers = new Map<string, NodeJS.Timeout>();
  readonly #beats = new Map<string, Promise<void>>();
  #isClosed = false;

  constructor(catalog: Catalog, work: RollingWork, log: Logger) {
    this.#catalog = catalog;
    this.#work = work;
    this.#log = log;
  }

  /** Takes up what the catalog has. */
  start(): void {
    for (const plan of this.#catalog.listRolling()) this.#schedule(plan);
  }

  /** Stops the clock, and waits for beats under way: their operations are cancelled by their owner. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const timer of this.#timers.values()) clearTimeout(timer);
    await Promise.all(this.#beats.values());
  }

  list(): Rolling[] {
    return this.#catalog.listRolling();
  }

  /** @throws StaghornError 'not-found' */
  get(experiment: string): Rolling {
    const plan = this.#find(experiment);
    if (plan !== null) return plan;
    throw new StaghornError('not-found', `experiment ${experiment} takes no rolling snapshots`);
  }

  /** Begins, or changes what is going on: the first beat comes at once if there was none before. */
  put(experiment: string, input: RollingInput): Rolling {
    const before = this.#find(experiment);
    const dueMs = before === null ? Date.now() : Date.parse(before.nextAt);
    const nextMs = Math.min(dueMs, Date.now() + input.everySeconds * 1000);
    const plan: Rolling = {
      taken: 0,
      skipped: 0,
      lastSnapshot: null,
      lastError: null,
      ...before,
      ...input,
      experiment,
      nextAt: new Date(nextMs).toISOString(),
    };
    this.#catalog.putRolling(plan);
    this.#schedule(plan);
    return plan;
  }

  /** Snapshots that were taken stay. A beat under way goes on to its end. */
  remove(experiment: string): void {
    this.get(experiment);
    clearTimeout(this.#timers.get(experiment));
    this.#timers.delete(experiment);
    this.#catalog.removeRolling(experiment);
  }

  #find(experiment: string): Rolling | null {
    return this.#catalog.listRolling().find((plan) => plan.experiment === experiment) ?? null;
  }

  #schedule({ experiment, nextAt }: Rolling): void {
    clearTimeout(this.#timers.get(experiment));
    if (this.#isClosed) return;
    const timer = setTimeout(() => this.#beat(experiment), Math.max(0, Date.parse(nextAt) - Date.now()));
    this.#timers.set(experiment, timer);
  }

  #beat(experiment: string): void {
    const plan = this.#find(experiment);
    if (plan === null || this.#isClosed) return;
    const next = { ...plan, nextAt: nextBeat(plan, Date.now()) };
    if (this.#beats.has(experiment) || !this.#work.isFree(experiment)) {
      this.#keep({ ...next, skipped: plan.skipped + 1 });
      this.#schedule(next);
      return;
    }
    this.#keep(next);
    this.#schedule(next);
    const beat = this.#carryOut(plan).finally(() => this.#beats.delete(experiment));
    this.#beats.set(experiment, beat);
  }

  async #carryOut({ experiment, keep, ...plan }: Rolling): Promise<void> {
    try {
      const taken = await this.#work.take(experiment, snapshotInputOf(plan));
      this.#change(experiment, (now) => ({
        taken: now.taken + 1,
        lastSnapshot: taken.id,
        lastError: null,
      }));
      for (const old of this.#surplus(experiment, keep)) if (!this.#isClosed) await this.#work.remove(old);
    } catch (error) {
      if (this.#isClosed) return;
      const problem = toProblem(asStaghornError(error));
      this.#log.warn({ experiment, err: error }, 'a rolling snapshot failed');
      this.#change(experiment, () => ({ lastError: { ...problem, at: new Date().toISOString() } }));
    }
  }

  /** Its own snapshots beyond the newest `keep`, the oldest first. */
  #surplus(experiment: string, keep: number): Snapshot[] {
    const own = this.#catalog
      .listSnapshots()
      .map(({ snapshot }) => snapshot)
      .filter(({ labels, name, ...one }) => {
        const isOurs =
          one.experiment === experiment && one.state === 'sealed' && Object.hasOwn(labels, rollingLabel);
        return isOurs && name === null && !Object.hasOwn(labels, keepLabel);
      });
    return own.slice(0, Math.max(0, own.length - keep));
  }

  #change(experiment: string, change: (plan: Rolling) => Partial<Rolling>): void {
    const plan = this.#find(experiment);
    if (plan !== null) this.#keep({ ...plan, ...change(plan) });
  }

  #keep(plan: Rolling): void {
    this.#catalog.putRolling(plan);
  }
}

/** The first beat of the plan's own rhythm that is still to come. */
export function nextBeat(
  { nextAt, everySeconds }: Pick<Rolling, 'nextAt' | 'everySeconds'>,
  nowMs: number,
): string {
  const periodMs = everySeconds * 1000;
  const dueMs = Date.parse(nextAt);
  const missed = Math.max(0, Math.floor((nowMs - dueMs) / periodMs));
  return new Date(dueMs + (missed + 1) * periodMs).toISOString();
}

function snapshotInputOf(plan: Partial<Rolling>): SnapshotInput {
  const { method, description, incremental, compression, compressionLevel, maxBandwidth, labels } = plan;
  return snapshotInput.parse({
    method,
    description,
    incremental,
    compression,
    compressionLevel,
    maxBandwidth,
    labels: { ...labels, [rollingLabel]: '' },
  });
}
