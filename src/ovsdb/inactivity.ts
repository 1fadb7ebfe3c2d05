export type InactivityVerdict = 'alive' | 'probe' | 'dead';

/**
 * Tells a silent peer from a dead one: after one interval without a byte it wants an echo sent, after one more the
 * peer is dead. It has no timer; the owner calls `elapsed` at each interval's end.
 */
export class InactivityProbe {
  #heard = true;
  #probing = false;

  /** Something arrived. */
  heard(): void {
    this.#heard = true;
  }

  /** An interval went by. */
  elapsed(): InactivityVerdict {
    const { heard, probing } = { heard: this.#heard, probing: this.#probing };
    this.#heard = false;
    this.#probing = !heard;
    if (heard) return 'alive';
    return probing ? 'dead' : 'probe';
  }
}
