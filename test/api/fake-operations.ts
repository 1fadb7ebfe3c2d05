import { StaghornError } from '../../src/errors/index.ts';
import { toProblem } from '../../src/protocol/problem.ts';
import type { Operation, OperationEvent, Progress } from '../../src/protocol/resources.ts';

/** Operations in memory that go on only when a test says so. */
export class FakeOperations {
  /** How many event streams are being read. */
  readers = 0;
  readonly #all = new Map<
    string,
    { operation: Operation; events: OperationEvent[]; wake: Set<() => void> }
  >();

  begin(kind: Operation['kind'], about: { experiment?: string; snapshot?: string }): Operation {
    const operation: Operation = {
      id: `op-${this.#all.size + 1}`,
      kind,
      experiment: about.experiment ?? null,
      snapshot: about.snapshot ?? null,
      state: 'running',
      startedAt: new Date().toISOString(),
      endedAt: null,
      progress: null,
      result: null,
      error: null,
    };
    this.#all.set(operation.id, { operation, events: [], wake: new Set() });
    return operation;
  }

  list(): Operation[] {
    return [...this.#all.values()].map(({ operation }) => operation);
  }

  get(id: string): Operation {
    return this.#entry(id).operation;
  }

  progress(id: string, progress: Progress): void {
    this.#entry(id).operation.progress = progress;
    this.#emit(id, { type: 'progress', progress });
  }

  end(id: string, outcome: { result?: Operation['result']; error?: StaghornError }): void {
    const { operation } = this.#entry(id);
    if (operation.state !== 'running') return;
    const failed = outcome.error?.code === 'cancelled' ? 'cancelled' : 'failed';
    operation.state = outcome.error === undefined ? 'succeeded' : failed;
    operation.endedAt = new Date().toISOString();
    operation.result = outcome.result ?? null;
    operation.error = outcome.error === undefined ? null : toProblem(outcome.error);
    this.#emit(id, { type: 'ended', operation: structuredClone(operation) });
  }

  async *events(
    id: string,
    options: { afterId?: number; signal?: AbortSignal },
  ): AsyncGenerator<OperationEvent> {
    const entry = this.#entry(id);
    this.readers += 1;
    try {
      for (let next = options.afterId ?? 0; ; next += 1) {
        while (entry.events.length <= next && entry.operation.state === 'running') {
          if (options.signal?.aborted === true) return;
          await new Promise<void>((resolve) => {
            entry.wake.add(resolve);
            options.signal?.addEventListener('abort', () => {
              resolve();
            });
          });
        }
        const event = entry.events[next];
        if (event === undefined) return;
        yield event;
      }
    } finally {
      this.readers -= 1;
    }
  }

  #emit(id: string, event: Omit<OperationEvent, 'id' | 'at'>): void {
    const { events, wake } = this.#entry(id);
    events.push({ id: events.length + 1, at: new Date().toISOString(), ...event });
    for (const resolve of wake) resolve();
    wake.clear();
  }

  #entry(id: string) {
    const entry = this.#all.get(id);
    if (entry === undefined) throw new StaghornError('not-found', `There is no operation "${id}"`);
    return entry;
  }
}
