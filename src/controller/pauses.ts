import { asStaghornError, messageOf, StaghornError } from '../errors/index.ts';
import type { Logger } from '../protocol/logger.ts';
import { defaultLeaseMs } from './agent-barrier.ts';
import { pauseProcedure, type Phase } from './barrier/procedures.ts';
import { BarrierRun } from './barrier/run.ts';
import type { Experiments } from './experiments.ts';
import type { OperationContext } from './operations.ts';
import { StopBarrier } from './stop-barrier.ts';

interface Pause {
  readonly run: BarrierRun;
  /** Settles when time goes on again. */
  readonly ended: Promise<void>;
  readonly cancel: AbortController;
}

/** Experiments whose time stands still until somebody says otherwise; their leases are renewed meanwhile. */
export class Pauses {
  readonly #experiments: Experiments;
  readonly #log: Logger;
  readonly #pauses = new Map<string, Pause>();
  /** Why the last pause of an experiment ended by itself: whoever would resume it is told. */
  readonly #broken = new Map<string, StaghornError>();

  constructor(experiments: Experiments, log: Logger) {
    this.#experiments = experiments;
    this.#log = log;
  }

  /** Resolves when time stands still; `onEnded` is called when it goes on, for whatever reason. */
  async pause(name: string, { signal, report }: OperationContext, onEnded: () => void): Promise<void> {
    const cancel = new AbortController();
    const forward = () => cancel.abort(signal.reason);
    signal.addEventListener('abort', forward, { once: true });
    try {
      const hosts = await this.#experiments.connect(name);
      const held = new HeldBarrier({
        experiment: name,
        snapshot: null,
        hosts,
        externalFrames: this.#experiments.externalFramesOf(name),
        report,
      });
      const run = new BarrierRun({
        procedure: pauseProcedure,
        hosts: hosts.map((host) => host.name),
        port: held,
        leaseMs: defaultLeaseMs,
        signal: cancel.signal,
      });
      const ended = run.complete().finally(() => {
        held.close();
        this.#pauses.delete(name);
        onEnded();
      });
      this.#broken.delete(name);
      ended.catch((error: unknown) => {
        this.#broken.set(name, asStaghornError(error));
        this.#log.warn({ experiment: name, reason: messageOf(error) }, 'a pause ended');
      });
      this.#pauses.set(name, { run, ended, cancel });
      await Promise.race([held.held, ended]);
    } catch (error) {
      if (!this.#pauses.has(name)) onEnded();
      throw error;
    } finally {
      signal.removeEventListener('abort', forward);
    }
  }

  /** Lets time go on; resolves when every VM runs and every held frame is back. @throws StaghornError 'wrong-state' */
  async resume(name: string): Promise<void> {
    const pause = this.#pauses.get(name);
    if (pause === undefined) throw this.notPaused(name);
    pause.run.release();
    await pause.ended;
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

/** A StopBarrier that tells when its time stands still and nothing is in flight any more. */
class HeldBarrier extends StopBarrier {
  readonly held: Promise<void>;
  #onHeld!: () => void;

  constructor(options: ConstructorParameters<typeof StopBarrier>[0]) {
    super(options);
    this.held = new Promise((resolve) => (this.#onHeld = resolve));
  }

  override enter(phase: Phase): void {
    super.enter(phase);
    if (phase.name === 'hold') this.#onHeld();
  }
}
