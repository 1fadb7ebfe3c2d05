import { systemTime, type Time } from '../../protocol/time.ts';

/**
 * A lease: unless it is renewed in time, it ends once and calls back. The controller renews; if it is gone, what
 * it had stopped goes on by itself.
 */
export class Lease {
  readonly #ms: number;
  readonly #onExpired: () => void;
  readonly #time: Time;
  #cancel: () => void;

  constructor(ms: number, onExpired: () => void, time: Time = systemTime) {
    this.#ms = ms;
    this.#onExpired = onExpired;
    this.#time = time;
    this.#cancel = time.after(ms, onExpired);
  }

  renew(): void {
    this.#cancel();
    this.#cancel = this.#time.after(this.#ms, this.#onExpired);
  }

  end(): void {
    this.#cancel();
  }
}
