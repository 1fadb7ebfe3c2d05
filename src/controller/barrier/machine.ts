import { StaghornError } from '../../errors/index.ts';
import type { BarrierCall, Phase, Procedure } from './procedures.ts';

/**
 * The barrier as a state machine without I/O: events in, actions out, no clock and no sockets, so that a
 * simulation can drive it through every interleaving.
 *
 * Invariants:
 * - a phase begins only when every host has answered every call of the phase before;
 * - a phase that a host refuses begins anew only when every host has answered its recall;
 * - whatever fails, at any host, turns the whole into an abort, which is sent to every host still reachable;
 * - after `done` or `aborted` nothing is sent any more, and late events change nothing.
 */
export type BarrierEvent =
  | { readonly type: 'start' }
  | { readonly type: 'replied'; readonly host: string; readonly call: BarrierCall }
  /** The host cannot do it in time, and has done nothing. */
  | { readonly type: 'refused'; readonly host: string; readonly call: BarrierCall }
  | { readonly type: 'failed'; readonly host: string; readonly error: StaghornError }
  /** The host's agent is gone: it will not answer, and it thaws by itself. */
  | { readonly type: 'lost'; readonly host: string; readonly error: StaghornError }
  | { readonly type: 'abort-answered'; readonly host: string }
  | { readonly type: 'deadline'; readonly timer: number }
  | { readonly type: 'release' }
  | { readonly type: 'cancel'; readonly error: StaghornError };

export type BarrierAction =
  | { readonly type: 'enter'; readonly phase: Phase }
  | { readonly type: 'call'; readonly host: string; readonly call: BarrierCall }
  | { readonly type: 'abort'; readonly host: string; readonly reason: string }
  /** Replaces the timer set before. */
  | { readonly type: 'set-deadline'; readonly timer: number; readonly ms: number }
  | { readonly type: 'done' }
  | {
      readonly type: 'aborted';
      readonly cause: StaghornError;
      /** Hosts that did not confirm: their leases end the barrier there. */
      readonly unconfirmed: readonly string[];
    };

export type BarrierState =
  | { readonly name: 'idle' }
  | {
      readonly name: 'running';
      readonly phase: number;
      /** Counts from 1. */
      readonly attempt: number;
      /** The host that refused; null: none has. */
      readonly refusedBy: string | null;
      /** Changed in place: a copy for each answer would cost the square of the number of hosts. */
      readonly waiting: Set<string>;
    }
  | { readonly name: 'aborting'; readonly cause: StaghornError; readonly waiting: Set<string> }
  | { readonly name: 'done' }
  | { readonly name: 'aborted' };

const abortDeadlineMs = 15_000;

const waitKey = (host: string, call: BarrierCall) => `${call} ${host}`;

type Running = Extract<BarrierState, { name: 'running' }>;
type Aborting = Extract<BarrierState, { name: 'aborting' }>;

export class BarrierMachine {
  readonly #procedure: Procedure;
  readonly #hosts: readonly string[];
  readonly #lost = new Set<string>();
  #state: BarrierState = { name: 'idle' };
  #timer = 0;

  constructor(procedure: Procedure, hosts: readonly string[]) {
    if (procedure.length === 0 || hosts.length === 0)
      throw new RangeError('a barrier needs phases and hosts');
    this.#procedure = procedure;
    this.#hosts = hosts;
  }

  get state(): BarrierState {
    return this.#state;
  }

  /** The phase that is being waited for; null before the start and after the end. */
  get phase(): Phase | null {
    return this.#state.name === 'running' ? (this.#procedure[this.#state.phase] ?? null) : null;
  }

  receive(event: BarrierEvent): BarrierAction[] {
    switch (this.#state.name) {
      case 'idle':
        return event.type === 'start' ? this.#enter(0, 1) : [];
      case 'running':
        return this.#whileRunning(this.#state, event);
      case 'aborting':
        return this.#whileAborting(this.#state, event);
      case 'done':
      case 'aborted':
        return [];
    }
  }

  #whileRunning(state: Running, event: BarrierEvent): BarrierAction[] {
    const phase = this.#procedure[state.phase]!;
    switch (event.type) {
      case 'replied':
        return this.#answered(state, event);
      case 'refused':
        return this.#answered({ ...state, refusedBy: state.refusedBy ?? event.host }, event);
      case 'failed':
      case 'cancel':
        return this.#abort(event.error);
      case 'lost':
        this.#lost.add(event.host);
        return this.#abort(event.error);
      case 'deadline':
        return event.timer === this.#timer ? this.#abort(deadlineError(phase, state.waiting)) : [];
      case 'release':
        return phase.calls.length === 0 ? this.#enter(state.phase + 1, 1) : [];
      case 'start':
      case 'abort-answered':
        return [];
    }
  }

  #whileAborting(state: Aborting, event: BarrierEvent): BarrierAction[] {
    switch (event.type) {
      case 'lost':
        this.#lost.add(event.host);
        return this.#abortAnswered(state, event.host);
      case 'abort-answered':
        return this.#abortAnswered(state, event.host);
      case 'deadline':
        return event.timer === this.#timer ? this.#endAborted(state.cause, state.waiting) : [];
      case 'start':
      case 'replied':
      case 'refused':
      case 'failed':
      case 'release':
      case 'cancel':
        return [];
    }
  }

  #answered(
    state: Running,
    { host, call }: { readonly host: string; readonly call: BarrierCall },
  ): BarrierAction[] {
    const before = this.#state as Running;
    const key = waitKey(host, call);
    if (!before.waiting.delete(key)) return [];
    this.#state = state;
    if (before.refusedBy === null && state.refusedBy !== null) return this.#recall(state, state.refusedBy);
    if (before.waiting.size > 0) return [];
    return state.refusedBy === null
      ? this.#enter(state.phase + 1, 1)
      : this.#enter(state.phase, state.attempt + 1);
  }

  /** What is unanswered of this attempt is waited for together with the recall, so that no answer is of another one. */
  #recall(state: Running, host: string): BarrierAction[] {
    const { name, recall, attempts = 1, deadlineMs } = this.#procedure[state.phase]!;
    if (recall === undefined || state.attempt >= attempts) return this.#abort(refusedError(name, host));
    for (const each of this.#hosts) state.waiting.add(waitKey(each, recall));
    return [
      this.#deadline(deadlineMs),
      ...this.#hosts.map((each) => ({ type: 'call' as const, host: each, call: recall })),
    ];
  }

  #abortAnswered({ cause, waiting }: Aborting, host: string): BarrierAction[] {
    waiting.delete(host);
    return waiting.size === 0 ? this.#endAborted(cause, waiting) : [];
  }

  #enter(index: number, attempt: number): BarrierAction[] {
    const phase = this.#procedure[index];
    if (phase === undefined) {
      this.#state = { name: 'done' };
      return [{ type: 'done' }];
    }
    const pairs = this.#hosts.flatMap((host) => phase.calls.map((call) => ({ host, call })));
    this.#state = {
      name: 'running',
      phase: index,
      attempt,
      refusedBy: null,
      waiting: new Set(pairs.map(({ host, call }) => waitKey(host, call))),
    };
    return [
      { type: 'enter', phase },
      this.#deadline(phase.deadlineMs),
      ...pairs.map(({ host, call }) => ({ type: 'call' as const, host, call })),
    ];
  }

  #abort(cause: StaghornError): BarrierAction[] {
    const reachable = this.#hosts.filter((host) => !this.#lost.has(host));
    if (reachable.length === 0) return this.#endAborted(cause, new Set());
    this.#state = { name: 'aborting', cause, waiting: new Set(reachable) };
    return [
      this.#deadline(abortDeadlineMs),
      ...reachable.map((host) => ({ type: 'abort' as const, host, reason: cause.message })),
    ];
  }

  #endAborted(cause: StaghornError, silent: ReadonlySet<string>): BarrierAction[] {
    this.#state = { name: 'aborted' };
    return [{ type: 'aborted', cause, unconfirmed: [...new Set([...this.#lost, ...silent])] }];
  }

  #deadline(ms: number): BarrierAction {
    this.#timer += 1;
    return { type: 'set-deadline', timer: this.#timer, ms };
  }
}

function deadlineError(phase: Phase, waiting: ReadonlySet<string>): StaghornError {
  const missing = [...waiting].map((key) => key.replace(' ', ' from ')).join(', ');
  return new StaghornError(
    'deadline-exceeded',
    `phase ${phase.name} did not end within ${phase.deadlineMs} ms: no answer to ${missing}`,
  );
}

function refusedError(phase: string, host: string): StaghornError {
  return new StaghornError('cut-too-late', `host ${host}: phase ${phase} came too late, again and again`, {
    context: { host },
  });
}
