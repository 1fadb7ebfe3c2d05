import { randomUUID } from 'node:crypto';
import { EventEmitter, on } from 'node:events';

import { asStaghornError, StaghornError } from '../errors/index.ts';
import type { Logger } from '../protocol/logger.ts';
import { toProblem } from '../protocol/problem.ts';
import type { Operation, OperationEvent, OperationKind, Progress } from '../protocol/resources.ts';

/** How many ended operations, and how many events of one, are remembered. */
export const rememberedOperations = 1_000;
export const rememberedEvents = 1_000;
/** Kinds that read the snapshot they are about. */
const reads: readonly OperationKind[] = ['restore', 'fork', 'verify', 'export'];

export interface OperationContext {
  /** Aborts when the operation is cancelled. */
  readonly signal: AbortSignal;
  readonly report: (progress: Progress) => void;
}

export interface OperationStart {
  readonly kind: OperationKind;
  readonly experiment: string | null;
  readonly snapshot: string | null;
  readonly work: (context: OperationContext) => Promise<Operation['result']>;
}

interface Entry {
  operation: Operation;
  readonly events: OperationEvent[];
  readonly emitter: EventEmitter;
  readonly cancel: AbortController;
  readonly ended: Promise<void>;
  nextEventId: number;
}

/**
 * Long work that goes on by itself, is watched and can be cancelled.
 * Invariant: an operation ends exactly once, and its last event says how.
 */
export class Operations {
  readonly #entries = new Map<string, Entry>();
  readonly #log: Logger;

  readonly #onEnded: (operation: Operation) => void;

  constructor(log: Logger, onEnded: (operation: Operation) => void) {
    this.#log = log;
    this.#onEnded = onEnded;
  }

  start({ kind, experiment, snapshot, work }: OperationStart): Operation {
    const cancel = new AbortController();
    const operation: Operation = {
      id: randomUUID(),
      kind,
      experiment,
      snapshot,
      state: 'running',
      startedAt: new Date().toISOString(),
      endedAt: null,
      progress: null,
      result: null,
      error: null,
    };
    const emitter = new EventEmitter();
    emitter.setMaxListeners(0);
    let ended!: () => void;
    const entry: Entry = {
      operation,
      events: [],
      emitter,
      cancel,
      ended: new Promise((resolve) => (ended = resolve)),
      nextEventId: 1,
    };
    this.#entries.set(operation.id, entry);
    this.#forgetOld();
    void this.#run(entry, work).then(ended);
    return operation;
  }

  get(id: string): Operation {
    return this.#require(id).operation;
  }

  list(): Operation[] {
    return [...this.#entries.values()].map(({ operation }) => operation);
  }

  /** @throws StaghornError 'conflict' while a restore, fork, check or export reads the snapshot */
  requireUnread(snapshot: string): void {
    const reader = this.list().find(
      (operation) =>
        operation.snapshot === snapshot && operation.state === 'running' && reads.includes(operation.kind),
    );
    if (reader === undefined) return;
    const text = `snapshot ${snapshot} is being read by operation ${reader.id} (${reader.kind}); wait for it, or cancel it`;
    throw new StaghornError('conflict', text);
  }

  cancel(id: string): Operation {
    const entry = this.#require(id);
    if (entry.operation.state === 'running') {
      entry.cancel.abort(new StaghornError('cancelled', 'cancelled on request'));
    }
    return entry.operation;
  }

  /** The operation when it has ended, however. */
  async ended(id: string): Promise<Operation> {
    const entry = this.#require(id);
    await entry.ended;
    return entry.operation;
  }

  /** Cancels everything and waits until it has ended. */
  async close(): Promise<void> {
    const running = [...this.#entries.values()].filter(({ operation }) => operation.state === 'running');
    for (const { cancel } of running)
      cancel.abort(new StaghornError('cancelled', 'the server is shutting down'));
    await Promise.all(running.map(({ ended }) => ended));
  }

  async *events(
    id: string,
    { afterId = 0, signal }: { afterId?: number; signal?: AbortSignal },
  ): AsyncIterable<OperationEvent> {
    const { events, emitter, operation } = this.#require(id);
    // Listening begins before the past is read: nothing falls between the two.
    const coming =
      operation.state === 'running'
        ? on(emitter, 'event', { close: ['ended'], ...(signal && { signal }) })
        : null;
    let lastId = afterId;
    for (const event of [...events]) {
      if (event.id <= lastId) continue;
      lastId = event.id;
      yield event;
    }
    if (coming === null) return;
    try {
      for await (const [event] of coming as AsyncIterable<[OperationEvent]>) {
        if (event.id <= lastId) continue;
        lastId = event.id;
        yield event;
        if (event.type === 'ended') return;
      }
    } catch (error) {
      if (!signal?.aborted) throw error;
    }
  }

  async #run(entry: Entry, work: OperationStart['work']): Promise<void> {
    const { signal } = entry.cancel;
    try {
      const result = await work({ signal, report: (progress) => this.#report(entry, progress) });
      this.#end(entry, { state: 'succeeded', result });
    } catch (error) {
      const wrapped = asStaghornError(error);
      if (wrapped.code === 'internal')
        this.#log.error({ err: error, operation: entry.operation.id }, wrapped.message);
      this.#end(entry, { state: signal.aborted ? 'cancelled' : 'failed', error: toProblem(wrapped) });
    }
  }

  #report(entry: Entry, progress: Progress): void {
    entry.operation = { ...entry.operation, progress };
    this.#emit(entry, { type: 'progress', progress });
  }

  #end(entry: Entry, outcome: Pick<Operation, 'state'> & Partial<Pick<Operation, 'result' | 'error'>>): void {
    entry.operation = { ...entry.operation, ...outcome, endedAt: new Date().toISOString() };
    const { id, kind, state, error } = entry.operation;
    this.#log.info({ operation: id, kind, state, error: error?.detail }, `${kind} ${state}`);
    this.#emit(entry, { type: 'ended', operation: entry.operation });
    entry.emitter.emit('ended');
    this.#onEnded(entry.operation);
  }

  #emit(entry: Entry, event: Omit<OperationEvent, 'id' | 'at'>): void {
    const numbered: OperationEvent = { id: entry.nextEventId++, at: new Date().toISOString(), ...event };
    entry.events.push(numbered);
    if (entry.events.length > rememberedEvents) entry.events.shift();
    entry.emitter.emit('event', numbered);
  }

  #require(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry === undefined) throw new StaghornError('not-found', `there is no operation ${id}`);
    return entry;
  }

  #forgetOld(): void {
    for (const [id, { operation }] of this.#entries) {
      if (this.#entries.size <= rememberedOperations) return;
      if (operation.state !== 'running') this.#entries.delete(id);
    }
  }
}
