import { cutLeadNs } from '../../protocol/instant.ts';
import type { Time } from '../../protocol/time.ts';

/**
 * An instant that was agreed upon. Until `cutLeadNs` before it nothing has happened, and it can be given up: the
 * controller does so when another host was told too late (docs/protocol.md#instants).
 */
export class CutSchedule {
  readonly #time: Time;
  #cancel: (() => void) | undefined;

  constructor(time: Time) {
    this.#time = time;
  }

  /** @returns whether there was still time: `begin` is called when it has come, unless it is recalled before. */
  set(atNs: bigint, begin: () => void): boolean {
    const aheadNs = atNs - cutLeadNs - this.#time.nowNs();
    if (aheadNs < 0n) return false;
    this.recall();
    this.#cancel = this.#time.after(Number(aheadNs / 1_000_000n), begin);
    return true;
  }

  recall(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }
}
