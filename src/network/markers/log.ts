import type { Marker } from './codec.ts';

/** Where a marker comes from. */
export interface MarkerOrigin {
  readonly host: string;
  readonly tap: string;
}

interface Heard {
  readonly parts: Set<number>;
  /** When the last of its parts was first heard; null while one is missing. */
  completeNs: bigint | null;
}

const keyOf = ({ host, tap }: MarkerOrigin) => `${host} ${tap}`;

/**
 * Which markers of one barrier have come, by round. Knows no clock and no gate: it is told.
 * Invariants: an origin is heard when every part of its round has come; repetitions change nothing.
 */
export class MarkerLog {
  readonly #nonce: Buffer;
  readonly #rounds = new Map<number, Map<string, Heard>>();

  constructor(nonce: Buffer) {
    this.#nonce = nonce;
  }

  /** One that came at an instant; of another barrier, it is passed over. */
  push({ nonce, round, part, parts, ...origin }: Marker, atNs: bigint): void {
    if (!nonce.equals(this.#nonce)) return;
    const heard = this.#heard(round, keyOf(origin));
    heard.parts.add(part);
    if (heard.parts.size >= parts) heard.completeNs ??= atNs;
  }

  /** Those of the origins that have not been heard in a round. */
  missing<Origin extends MarkerOrigin>(round: number, origins: readonly Origin[]): Origin[] {
    const heard = this.#rounds.get(round);
    return origins.filter((origin) => (heard?.get(keyOf(origin))?.completeNs ?? null) === null);
  }

  /** When the last origin that was heard in a round was heard; null if none was. */
  lastHeardNs(round: number): bigint | null {
    const instants = [...(this.#rounds.get(round)?.values() ?? [])].map(({ completeNs }) => completeNs);
    return instants.reduce(
      (last, atNs) => (last === null || (atNs !== null && atNs > last) ? atNs : last),
      null,
    );
  }

  #heard(round: number, key: string): Heard {
    const ofRound = this.#rounds.get(round) ?? new Map<string, Heard>();
    this.#rounds.set(round, ofRound);
    const heard = ofRound.get(key) ?? { parts: new Set(), completeNs: null };
    ofRound.set(key, heard);
    return heard;
  }
}
