import type { QmpError } from './errors.ts';
import type { QmpEvent, QmpEventName } from './events.ts';
import { Waiter } from './waiter.ts';
import type { WaitOptions } from './waiter.ts';

export type QmpEventListener = (event: QmpEvent) => void;

export interface EventWaitOptions<N extends QmpEventName> extends WaitOptions {
  /** Events that came already count too, if QEMU stamped them at or after this (CLOCK_REALTIME, ns). */
  readonly since?: bigint | undefined;
  /** Only an event that this holds for. */
  readonly where?: ((event: QmpEvent<N>) => boolean) | undefined;
}

interface EventWait {
  readonly matches: (event: QmpEvent) => boolean;
  readonly waiter: Waiter<QmpEvent>;
}

/** Hands events to listeners and to those who wait, and remembers the latest `capacity` of them. */
export class EventLog {
  readonly #capacity: number;
  readonly #recent: QmpEvent[] = [];
  readonly #listeners = new Set<QmpEventListener>();
  readonly #waits = new Map<number, EventWait>();
  #lastWait = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  add(event: QmpEvent): void {
    this.#recent.push(event);
    if (this.#recent.length > this.#capacity) this.#recent.shift();
    for (const { matches, waiter } of [...this.#waits.values()]) {
      if (matches(event)) waiter.resolve(event);
    }
    for (const listener of [...this.#listeners]) listener(event);
  }

  listen(listener: QmpEventListener): () => void {
    // A wrapper of its own, so that one function may listen twice and each be taken off alone.
    const own: QmpEventListener = (event) => {
      listener(event);
    };
    this.#listeners.add(own);
    return () => {
      this.#listeners.delete(own);
    };
  }

  wait<N extends QmpEventName>(name: N, options: EventWaitOptions<N>): Promise<QmpEvent<N>> {
    const { signal, timeoutMs, since, where } = options;
    const matches = (event: QmpEvent): boolean =>
      event.name === name && (where === undefined || where(event as QmpEvent<N>));
    this.#lastWait += 1;
    const key = this.#lastWait;
    const onSettled = (): void => {
      this.#waits.delete(key);
    };
    const waiter = new Waiter<QmpEvent>({ what: `event ${name}`, signal, timeoutMs, onSettled });
    const earlier = since === undefined ? undefined : this.#find(matches, since);
    if (earlier !== undefined) waiter.resolve(earlier);
    if (!waiter.settled) this.#waits.set(key, { matches, waiter });
    // The name was compared, and with it goes the type of the data.
    return waiter.promise as Promise<QmpEvent<N>>;
  }

  /** No event will come any more. */
  fail(error: QmpError): void {
    for (const { waiter } of [...this.#waits.values()]) waiter.reject(error);
  }

  #find(matches: (event: QmpEvent) => boolean, since: bigint): QmpEvent | undefined {
    return this.#recent.find((event) => event.timestampNs >= since && matches(event));
  }
}
