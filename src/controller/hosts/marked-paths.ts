import {
  planTargets,
  sourcesByHost,
  unmarkedPairs,
  unmarkedWarnings,
  unprovenWarnings,
} from '../barrier/marker-plan.ts';
import type { ArmedPort, MarkerSource, NamesByHost } from '../../protocol/rpc.ts';

/** How long a host listens for markers; a path that takes longer is unproven. */
export const markerListenBoundMs = 1_000;

/** Who sends markers to whom in one barrier, and which came (docs/protocol.md#markers). */
export class MarkedPaths {
  #targets: ReadonlyMap<string, NamesByHost> = new Map();
  #sources: ReadonlyMap<string, NamesByHost> = new Map();
  #unmarkedPairs = 0;
  readonly #sent = new Map<string, NamesByHost>();
  readonly #unheard = new Map<string, readonly MarkerSource[]>();

  /** Every host has said by which ports it can be reached. */
  aim(ports: ReadonlyMap<string, readonly ArmedPort[]>): void {
    this.#targets = planTargets(ports);
    this.#unmarkedPairs = unmarkedPairs(ports);
  }

  targetsOf(host: string): NamesByHost {
    return this.#targets.get(host) ?? {};
  }

  sent(host: string, sent: NamesByHost): void {
    this.#sent.set(host, sent);
  }

  /** Every host has said what it sends. */
  trace(): void {
    this.#sources = sourcesByHost(this.#sent);
  }

  sourcesOf(host: string): NamesByHost {
    return this.#sources.get(host) ?? {};
  }

  unheard(host: string, missing: readonly MarkerSource[]): void {
    this.#unheard.set(host, missing);
  }

  /** Empty if one came on every path. */
  get warnings(): string[] {
    const unproven = [...this.#unheard].flatMap(([host, missing]) =>
      unprovenWarnings(missing).map((text) => `host ${host}: ${text}`),
    );
    return [...unproven, ...unmarkedWarnings(this.#unmarkedPairs)];
  }
}
