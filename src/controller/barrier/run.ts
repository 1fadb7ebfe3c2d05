import { deferred } from '../../protocol/deferred.ts';
import { every, type Time } from '../../protocol/time.ts';
import { asStaghornError, StaghornError } from '../../errors/index.ts';
import { BarrierMachine, type BarrierAction, type BarrierEvent } from './machine.ts';
import type { BarrierCall, Phase, Procedure } from './procedures.ts';

/** `refused`: the host cannot do it in time, and has done nothing. */
export type CallOutcome = void | 'refused';

/** The I/O of one barrier run: how a call reaches a host. */
export interface BarrierPort {
  readonly time: Time;
  /** Plans what the calls of a phase need, once for all hosts, right before they are sent. */
  enter(phase: Phase): void;
  call(host: string, call: BarrierCall, signal: AbortSignal): Promise<CallOutcome>;
  abort(host: string, reason: string): Promise<void>;
  renew(host: string): Promise<void>;
  /** Calls back when the host's agent is gone or has given up; returns how to stop listening. */
  onTrouble(host: string, listener: (trouble: { lost: boolean; error: StaghornError }) => void): () => void;
}

export interface BarrierOptions {
  readonly procedure: Procedure;
  readonly hosts: readonly string[];
  readonly port: BarrierPort;
  readonly leaseMs: number;
  readonly signal?: AbortSignal;
}

/** Drives a BarrierMachine: carries out its actions, feeds it what happens, renews the leases meanwhile. */
export class BarrierRun {
  readonly #machine: BarrierMachine;
  readonly #options: BarrierOptions;
  readonly #calls = new AbortController();
  readonly #ended = deferred<void>();
  readonly #cleanups: (() => void)[] = [];
  #cancelDeadline: () => void = () => undefined;

  constructor(options: BarrierOptions) {
    this.#options = options;
    this.#machine = new BarrierMachine(options.procedure, options.hosts);
  }

  /**
   * Resolves when every phase has ended; rejects with the cause after an abort has been carried through.
   * @throws StaghornError
   */
  async complete(): Promise<void> {
    const { hosts, port, signal, leaseMs } = this.#options;
    for (const host of hosts) {
      this.#cleanups.push(
        port.onTrouble(host, ({ lost, error }) =>
          this.#feed({ type: lost ? 'lost' : 'failed', host, error }),
        ),
      );
    }
    const cancel = () => this.#feed({ type: 'cancel', error: cancelError(signal) });
    signal?.addEventListener('abort', cancel, { once: true });
    const endRenewal = every(port.time, leaseMs / 3, () => this.#renew());
    this.#cleanups.push(
      () => signal?.removeEventListener('abort', cancel),
      endRenewal,
      () => this.#cancelDeadline(),
    );
    try {
      this.#feed({ type: 'start' });
      if (signal?.aborted) cancel();
      await this.#ended.promise;
    } finally {
      for (const cleanup of this.#cleanups) cleanup();
    }
  }

  /** Ends a phase that waits (a paused experiment goes on). */
  release(): void {
    this.#feed({ type: 'release' });
  }

  get phase(): string | null {
    return this.#machine.phase?.name ?? null;
  }

  #feed(event: BarrierEvent): void {
    const actions = this.#machine.receive(event);
    try {
      for (const action of actions) this.#perform(action);
    } catch (error) {
      // Planning failed: nothing more of this phase is sent.
      this.#feed({ type: 'cancel', error: asStaghornError(error) });
    }
  }

  #perform(action: BarrierAction): void {
    const { port } = this.#options;
    switch (action.type) {
      case 'enter':
        port.enter(action.phase);
        return;
      case 'call':
        void this.#call(action.host, action.call);
        return;
      case 'abort':
        this.#calls.abort(new StaghornError('cancelled', action.reason));
        port
          .abort(action.host, action.reason)
          .then(() => this.#feed({ type: 'abort-answered', host: action.host }))
          .catch((error: unknown) =>
            this.#feed({ type: 'lost', host: action.host, error: asStaghornError(error) }),
          );
        return;
      case 'set-deadline':
        this.#cancelDeadline();
        this.#cancelDeadline = port.time.after(action.ms, () =>
          this.#feed({ type: 'deadline', timer: action.timer }),
        );
        return;
      case 'done':
        this.#ended.resolve();
        return;
      case 'aborted':
        this.#ended.reject(withUnconfirmed(action.cause, action.unconfirmed));
        return;
    }
  }

  async #call(host: string, call: BarrierCall): Promise<void> {
    let outcome: CallOutcome;
    try {
      outcome = await this.#options.port.call(host, call, this.#calls.signal);
    } catch (error) {
      this.#feed({ type: 'failed', host, error: asStaghornError(error) });
      return;
    }
    this.#feed({ type: outcome ?? 'replied', host, call });
  }

  #renew(): void {
    for (const host of this.#options.hosts) {
      // A renewal that fails needs no answer here: the lost connection or the ended lease is reported on its own.
      this.#options.port.renew(host).catch(() => undefined);
    }
  }
}

function cancelError(signal: AbortSignal | undefined): StaghornError {
  return signal?.reason instanceof StaghornError
    ? signal.reason
    : new StaghornError('cancelled', 'cancelled on request');
}

function withUnconfirmed(cause: StaghornError, unconfirmed: readonly string[]): StaghornError {
  if (unconfirmed.length === 0) return cause;
  const hosts = unconfirmed.join(', ');
  return new StaghornError(
    cause.code,
    `${cause.message} (not confirmed by ${hosts}: VMs there resume by themselves when the lease ends)`,
    { cause, context: cause.context },
  );
}
