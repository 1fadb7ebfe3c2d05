import { setImmediate as turn } from 'node:timers/promises';

import type { Time } from '../protocol/time.ts';

/** Hosts that were switched on later have clocks that are behind. */
export const bootNs = 1_000_000_000_000n;

interface Event {
  readonly atNs: bigint;
  /** Events of the same instant happen in the order in which they were made. */
  readonly order: number;
  callback: (() => void) | null;
}

/** Time that passes only when everything that happens at an instant has happened. */
export class VirtualTime implements Time {
  readonly #heap: Event[] = [];
  #nowNs = bootNs;
  #made = 0;

  nowNs(): bigint {
    return this.#nowNs;
  }

  after(delayMs: number, callback: () => void): () => void {
    const delayNs = BigInt(Math.max(0, Math.round(delayMs * 1e6)));
    const event: Event = { atNs: this.#nowNs + delayNs, order: this.#made++, callback };
    this.#push(event);
    return () => (event.callback = null);
  }

  /** Lets time pass until the condition holds, or for so long at most. @returns whether it holds */
  async run(forMs: number, until: () => boolean = () => false): Promise<boolean> {
    const endNs = this.#nowNs + BigInt(Math.round(forMs * 1e6));
    await settle();
    while (!until()) {
      const next = this.#heap[0];
      if (next === undefined || next.atNs > endNs) {
        this.#nowNs = endNs;
        return until();
      }
      this.#pop();
      if (next.callback === null) continue;
      this.#nowNs = next.atNs;
      next.callback();
      await settle();
    }
    return true;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let place = heap.push(event) - 1;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!isBefore(event, heap[parent]!)) break;
      heap[place] = heap[parent]!;
      place = parent;
    }
    heap[place] = event;
  }

  #pop(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[place] = heap[child]!;
      place = child;
    }
    heap[place] = last;
  }
}

const isBefore = (a: Event, b: Event) => a.atNs < b.atNs || (a.atNs === b.atNs && a.order < b.order);

/** A macrotask comes when no microtask is left: every promise that can go on has gone on. */
const settle = () => turn();

/** The time of one process: when it is killed, nothing that it waits for happens any more. */
export class ProcessTime implements Time {
  readonly #base: Time;
  #killed = false;

  constructor(base: Time) {
    this.#base = base;
  }

  nowNs(): bigint {
    return this.#base.nowNs();
  }

  after(delayMs: number, callback: () => void): () => void {
    return this.#base.after(delayMs, () => {
      if (!this.#killed) callback();
    });
  }

  get isKilled(): boolean {
    return this.#killed;
  }

  kill(): void {
    this.#killed = true;
  }
}

/** A host's own clock: it began elsewhere, and it is a little too fast or too slow. */
export class HostTime implements Time {
  readonly #base: Time;
  readonly #offsetNs: bigint;
  readonly #rate: number;
  readonly #sinceNs: bigint;

  constructor(base: Time, offsetNs: bigint, driftPpm: number) {
    this.#base = base;
    this.#offsetNs = offsetNs;
    this.#rate = 1 + driftPpm / 1e6;
    this.#sinceNs = base.nowNs();
  }

  nowNs(): bigint {
    const baseNs = this.#base.nowNs();
    return baseNs + this.#offsetNs + BigInt(Math.round(Number(baseNs - this.#sinceNs) * (this.#rate - 1)));
  }

  after(delayMs: number, callback: () => void): () => void {
    return this.#base.after(delayMs / this.#rate, callback);
  }
}
