import { spreadNs } from '../controller/barrier/planning.ts';
import type { Snapshot } from '../protocol/resources.ts';
import type { Time } from '../protocol/time.ts';
import type { HostObserver, SimulatedHost } from './host.ts';

/** What must never happen, by name. */
export type Rule =
  | 'nobody is cut unless all were armed'
  | 'nobody resumes before all have drained unless aborting'
  | 'a sealed snapshot is complete on every host'
  | 'a skew is as far from the true one as its bound says, at most'
  | 'when an operation ends, time goes on on every host that it does not name'
  | 'when one host gives up, time goes on on the others'
  | 'after faults stop, everything runs and all gates are open'
  | 'after faults stop, a snapshot can be taken'
  | 'nothing is left of snapshots that nobody knows';

/** @param who what is known of it, for the trace */
export type Violation = { readonly rule: Rule; readonly who: string };

interface SeenBarrier {
  readonly armed: Set<string>;
  readonly drained: Set<string>;
  readonly saved: Set<string>;
  /** True instants. */
  readonly stopsNs: bigint[];
  snapshot: string | null;
}

/** Watches the hosts of a simulated site, and what its controller says, and compares. */
export class Invariants implements HostObserver {
  readonly violations: Violation[] = [];
  readonly #hosts: readonly SimulatedHost[];
  readonly #time: Time;
  readonly #trace: (text: string) => void;
  readonly #barriers = new Map<string, SeenBarrier>();
  readonly #onGaveUp: (host: string) => void;
  readonly #excusedUntilNs = new Map<string, bigint>();

  constructor(
    hosts: readonly SimulatedHost[],
    time: Time,
    trace: (text: string) => void,
    onGaveUp: (host: string) => void,
  ) {
    this.#hosts = hosts;
    this.#time = time;
    this.#trace = trace;
    this.#onGaveUp = onGaveUp;
  }

  armed(barrier: string, host: string): void {
    this.#see(barrier, host, 'is armed').armed.add(host);
  }

  cut(barrier: string, host: string, snapshot: string | null): void {
    const seen = this.#see(barrier, host, 'is cut');
    seen.snapshot = snapshot;
    this.#require('nobody is cut unless all were armed', seen.armed.size === this.#hosts.length, host);
  }

  stopped(barrier: string, host: string): void {
    this.#see(barrier, host, 'stands still').stopsNs.push(this.#time.nowNs());
  }

  drained(barrier: string, host: string): void {
    this.#see(barrier, host, 'has drained').drained.add(host);
  }

  saved(barrier: string, host: string): void {
    this.#see(barrier, host, 'has kept its VMs').saved.add(host);
  }

  resumed(barrier: string, host: string): void {
    const { drained, saved, snapshot } = this.#see(barrier, host, 'resumes');
    const all = this.#hosts.length;
    const ready = drained.size === all && (snapshot === null || saved.size === all);
    this.#require('nobody resumes before all have drained unless aborting', ready, host);
  }

  gaveUp(barrier: string, host: string): void {
    this.#see(barrier, host, 'gives up');
    this.#onGaveUp(host);
  }

  sealed({ id, skewNs, clockErrorNs }: Snapshot): void {
    this.complete(id);
    const seen = [...this.#barriers.values()].find(({ snapshot }) => snapshot === id);
    const trueNs = spreadNs(seen?.stopsNs ?? []);
    const text = `VMs stopped ${trueNs} ns apart, and the snapshot says ${skewNs} ± ${clockErrorNs}`;
    const rule = 'a skew is as far from the true one as its bound says, at most';
    this.#require(rule, Math.abs(trueNs - skewNs) <= clockErrorNs + roundingNs, text);
  }

  complete(id: string): void {
    for (const { name, parts } of this.#hosts)
      this.#require(
        'a sealed snapshot is complete on every host',
        parts.get(id) === 'sealed',
        `${id} on ${name}`,
      );
  }

  /** @param unconfirmed what the error of the operation says itself */
  ended(unconfirmed: ReadonlySet<string>): void {
    const nowNs = this.#time.nowNs();
    this.excuse(unconfirmed);
    for (const { name, runs } of this.#hosts) {
      const rule = 'when an operation ends, time goes on on every host that it does not name';
      // The next operation may end before the lease of this one.
      const excused = (this.#excusedUntilNs.get(name) ?? 0n) >= nowNs;
      if (!excused) this.#require(rule, runs, name);
    }
  }

  /** Hosts that cannot be reached, or whose controller has died: their leases end what is under way there. */
  excuse(hosts: Iterable<string>): void {
    for (const name of hosts) this.#excusedUntilNs.set(name, this.#time.nowNs() + leaseBoundNs);
  }

  require(rule: Rule, holds: boolean, who: string): void {
    this.#require(rule, holds, who);
  }

  #require(rule: Rule, holds: boolean, who: string): void {
    if (holds) return;
    this.violations.push({ rule, who });
    this.#trace(`VIOLATION: ${rule}: ${who}`);
  }

  #see(barrier: string, host: string, what: string): SeenBarrier {
    this.#trace(`${host} ${what}`);
    let seen = this.#barriers.get(barrier);
    if (seen === undefined) {
      seen = { armed: new Set(), drained: new Set(), saved: new Set(), stopsNs: [], snapshot: null };
      this.#barriers.set(barrier, seen);
    }
    return seen;
  }
}

/** A lease of 10 s, and some time to give up in. */
const leaseBoundNs = 12_000_000_000n;
/** Of the simulated clocks. */
const roundingNs = 4;
