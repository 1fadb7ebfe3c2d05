import type { Gate } from '../native/gate.ts';

/** Its memory is as large as a host's room for held frames: it is not kept for long. */
const keptMs = 30_000;

export interface GateSizes {
  readonly slots: number;
  readonly ringBytes: number;
}

/**
 * A gate that stands in no port any more, kept for the next barrier: the kernel takes longer to make and clear its
 * ring than a VM to be reset.
 * Invariant: what is kept holds nothing, passes, and has lost nothing.
 */
export class SpareGate {
  #kept: { readonly gate: Gate; readonly sizes: GateSizes } | undefined;
  #expiry: NodeJS.Timeout | undefined;

  /** Takes the gate, if it has these sizes. */
  take({ slots, ringBytes }: GateSizes): Gate | null {
    const kept = this.#kept;
    if (kept === undefined || kept.sizes.slots !== slots || kept.sizes.ringBytes !== ringBytes) return null;
    this.#kept = undefined;
    return kept.gate;
  }

  /** @returns false for a gate that is not as new; it stays the caller's */
  keep(gate: Gate, sizes: GateSizes): boolean {
    if (!isAsNew(gate)) return false;
    this.close();
    // Markers of the barrier that ended are no next one's.
    gate.listening = false;
    gate.takeMarkers();
    this.#kept = { gate, sizes };
    this.#expiry = setTimeout(() => this.close(), keptMs).unref();
    return true;
  }

  close(): void {
    clearTimeout(this.#expiry);
    this.#kept?.gate.close();
    this.#kept = undefined;
  }
}

function isAsNew(gate: Gate): boolean {
  if (gate.mode !== 'pass' || gate.countHeld().some((count) => count > 0)) return false;
  return Array.from({ length: gate.slots }, (_, slot) => gate.counters(slot)).every(
    ({ diverted, returned, failed }) => diverted === returned && failed === 0,
  );
}
