import { asStaghornError, messageOf, StaghornError } from '../../errors/index.ts';
import type { Time } from '../../protocol/time.ts';
import type { Logger } from '../../protocol/logger.ts';
import { defaultLeaseMs, type AgentBarrier } from '../hosts/agent-barrier.ts';
import { pauseProcedure, type Phase, type Procedure } from '../barrier/procedures.ts';
import { BarrierRun, type BarrierPort } from '../barrier/run.ts';
import type { Experiments } from '../experiments.ts';
import type { OperationContext } from '../operations.ts';
import { StopBarrier } from './stop-barrier.ts';

export interface Holding {
  readonly barrier: AgentBarrier;
  readonly procedure: Procedure;
  readonly signal: AbortSignal;
  /** Says of a failure how it has left the experiment. */
  readonly explain?: (error: unknown) => StaghornError;
}

/** What it takes to leave an experiment standing, and to let it go. */
export interface StandingTools {
  readonly experiments: Experiments;
  readonly pauses: Pauses;
}

/** A barrier that waits where time stands still; whoever began it closes it at its end. */
export interface HeldRun {
  readonly run: BarrierRun;
  readonly barrier: AgentBarrier;
  /** Settles when time goes on again, or the barrier was given up. */
  readonly ended: Promise<void>;
  readonly cancel: AbortController;
}

/** Experiments whose time stands still until somebody says otherwise; their leases are renewed meanwhile. */
export class Pauses {
  readonly #experiments: Experiments;
  readonly #log: Logger;
  readonly #pauses = new Map<string, HeldRun>();
  /** Why the last pause of an experiment ended by itself: whoever would resume it is told. */
  readonly #broken = new Map<string, StaghornError>();

  constructor(experiments: Experiments, log: Logger) {
    this.#experiments = experiments;
    this.#log = log;
  }

  /** Resolves when time stands still; `onEnded` is called when it goes on, for whatever reason. */
  async pause(name: string, context: OperationContext, onEnded: () => void): Promise<void> {
    let held = false;
    try {
      const hosts = await this.#experiments.connect(name);
      const barrier = new StopBarrier({
        experiment: name,
        snapshot: null,
        hosts,
        externalFrames: this.#experiments.externalFramesOf(name),
        report: context.report,
      });
      held = true;
      await this.hold(name, { barrier, procedure: pauseProcedure, signal: context.signal }, onEnded);
    } catch (error) {
      if (!held) onEnded();
      throw error;
    }
  }

  /**
   * Carries a procedure to where it waits, and keeps it there; resolves when it has come there. `onEnded` is called
   * when time goes on or the barrier has failed.
   */
  async hold(
    name: string,
    { barrier, procedure, signal, explain = asStaghornError }: Holding,
    onEnded: () => void,
  ): Promise<void> {
    const cancel = new AbortController();
    const forward = () => cancel.abort(signal.reason);
    signal.addEventListener('abort', forward, { once: true });
    const port = new HeldPort(barrier);
    const hosts = [...barrier.hosts.keys()];
    const run = new BarrierRun({ procedure, hosts, port, leaseMs: defaultLeaseMs, signal: cancel.signal });
    const completed = run
      .complete()
      .catch((error: unknown) => Promise.reject(explain(error)))
      .finally(() => barrier.close());
    const ended = this.adopt(name, { run, barrier, ended: completed, cancel }, onEnded);
    try {
      await Promise.race([port.held, ended]);
    } finally {
      signal.removeEventListener('abort', forward);
    }
  }

  /** Keeps a barrier that somebody else has brought, or brings, to where it waits. @returns what settles when it ends */
  adopt(name: string, held: HeldRun, onEnded: () => void): Promise<void> {
    const ended = held.ended.finally(() => {
      this.#pauses.delete(name);
      onEnded();
    });
    this.#broken.delete(name);
    ended.catch((error: unknown) => {
      this.#broken.set(name, asStaghornError(error));
      this.#log.warn({ experiment: name, reason: messageOf(error) }, 'a pause ended');
    });
    this.#pauses.set(name, { ...held, ended });
    return ended;
  }

  /**
   * Lets time go on; resolves when every VM runs and every held frame is back.
   * @returns the instant at which the last VM ran, on the controller's clock; null if none was to
   * @throws StaghornError 'wrong-state'
   */
  async resume(name: string): Promise<bigint | null> {
    const pause = this.#pauses.get(name);
    if (pause === undefined) throw this.notPaused(name);
    pause.run.release();
    await pause.ended;
    return pause.barrier.lastResumeNs;
  }

  /** Gives up what stands still: VMs that were stopped run again, those that were loaded end. */
  async giveUp(name: string, reason: string): Promise<void> {
    const pause = this.#pauses.get(name);
    pause?.cancel.abort(new StaghornError('cancelled', reason));
    await pause?.ended.catch(() => undefined);
  }

  isPaused(name: string): boolean {
    return this.#pauses.get(name)?.run.phase === 'hold';
  }

  /** What to say to whoever would resume it: time goes on, and why if it was not asked to. */
  notPaused(name: string): StaghornError {
    const broken = this.#broken.get(name);
    if (broken === undefined) return new StaghornError('wrong-state', `experiment ${name} is not paused`);
    const { code, message, context } = broken;
    return new StaghornError(code, `experiment ${name} is not paused any more: ${message}`, { context });
  }

  /** Lets everything go on. */
  async close(): Promise<void> {
    const pauses = [...this.#pauses.values()];
    for (const { run } of pauses) run.release();
    await Promise.allSettled(pauses.map(({ ended }) => ended));
  }
}

/** A barrier that tells when its time stands still and nothing is in flight any more. */
class HeldPort implements BarrierPort {
  readonly time: Time;
  readonly held: Promise<void>;
  readonly #port: BarrierPort;
  #onHeld!: () => void;

  constructor(port: BarrierPort) {
    this.#port = port;
    this.time = port.time;
    this.held = new Promise((resolve) => (this.#onHeld = resolve));
  }

  enter(phase: Phase): void {
    this.#port.enter(phase);
    if (phase.name === 'hold') this.#onHeld();
  }

  call(...call: Parameters<BarrierPort['call']>): ReturnType<BarrierPort['call']> {
    return this.#port.call(...call);
  }

  abort(...abort: Parameters<BarrierPort['abort']>): Promise<void> {
    return this.#port.abort(...abort);
  }

  renew(host: string): Promise<void> {
    return this.#port.renew(host);
  }

  onTrouble(...listen: Parameters<BarrierPort['onTrouble']>): () => void {
    return this.#port.onTrouble(...listen);
  }
}
