import type { OvsdbTableUpdates } from './operations.ts';

export const maxHeldUpdates = 4096;

export type OvsdbUpdateListener = (updates: OvsdbTableUpdates) => void;

/**
 * Hands a monitor's updates to its listener, but none before the caller has seen the initial state: an update may
 * stand in the very chunk that ends the reply. At most `maxHeldUpdates` are held; a chunk of 64 KiB cannot hold as many.
 */
export class UpdateFeed {
  readonly #listener: OvsdbUpdateListener;
  readonly #held: OvsdbTableUpdates[] = [];
  #state: 'holding' | 'open' | 'closed' = 'holding';

  constructor(listener: OvsdbUpdateListener) {
    this.#listener = listener;
  }

  /** False if there is no room for it: the server sends updates of a monitor that it has not agreed to. */
  receive(updates: OvsdbTableUpdates): boolean {
    if (this.#state === 'open') this.#listener(updates);
    else if (this.#state === 'holding') {
      if (this.#held.length >= maxHeldUpdates) return false;
      this.#held.push(updates);
    }
    return true;
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
