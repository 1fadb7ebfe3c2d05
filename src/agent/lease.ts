/**
 * A lease: unless it is renewed in time, it ends once and calls back. The controller renews; if it is gone, what
 * it had stopped goes on by itself.
 */
export class Lease {
  readonly #ms: number;
  readonly #onExpired: () => void;
  #timer: NodeJS.Timeout;

  constructor(ms: number, onExpired: () => void) {
    this.#ms = ms;
    this.#onExpired = onExpired;
    this.#timer = setTimeout(onExpired, ms);
  }

  renew(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#onExpired, this.#ms);
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}
