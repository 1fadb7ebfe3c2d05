import type { OvsdbTableUpdates } from './operations.ts';

export type OvsdbUpdateListener = (updates: OvsdbTableUpdates) => void;

/**
 * Hands a monitor's updates to its listener, but none before the caller has seen the initial state: an update may
 * stand in the very chunk that ends the reply. Held are at most the updates that arrive within one turn of the event loop.
 */
export class UpdateFeed {
  readonly #listener: OvsdbUpdateListener;
  readonly #held: OvsdbTableUpdates[] = [];
  #state: 'holding' | 'open' | 'closed' = 'holding';

  constructor(listener: OvsdbUpdateListener) {
    this.#listener = listener;
  }

  receive(updates: OvsdbTableUpdates): void {
    if (this.#state === 'open') this.#listener(updates);
    else if (this.#state === 'holding') this.#held.push(updates);
  }

  /** The initial state is known: what is held goes out once those who await it have run. */
  open(): void {
    setImmediate(() => {
      if (this.#state !== 'holding') return;
      this.#state = 'open';
      for (const updates of this.#held.splice(0)) this.#listener(updates);
    });
  }

  /** Nothing more goes to the listener. */
  close(): void {
    this.#state = 'closed';
    this.#held.length = 0;
  }
}
