import { asStaghornError, messageOf, StaghornError } from '../errors/index.ts';
import { Gate } from '../native/gate.ts';
import type { GateIdentity, PortCounters, ReplayReport } from '../native/gate.ts';
import type { GateSizes, SpareGate } from './spare-gate.ts';

/** A port to be held, and where the gate's program goes. The descriptor of a tap stays the caller's. */
export type PortToGate = { readonly name: string; readonly ifindex: number } & (
  { readonly place: 'tap'; readonly fd: number } | { readonly place: 'egress' }
);

/** A port as it is noted on disk, for the agent that comes after a crash. */
export interface GatedPort {
  readonly name: string;
  readonly slot: number;
  readonly ifindex: number;
  readonly place: 'tap' | 'egress';
  /** Whether the gate made the device's clsact qdisc, and removes it again. */
  readonly madeClsact: boolean;
}

export interface HeldOnPort {
  readonly port: string;
  /** When it came, on CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  readonly gsoSize: number;
  readonly frame: Buffer;
}

export interface Resumption {
  /** How long the port's VM was stopped: a held frame is due that long after it came. */
  readonly shiftNs: bigint;
  /** When the port's VM resumes, on CLOCK_MONOTONIC. */
  readonly notBeforeNs: bigint;
}

export interface ReplayPortsOptions {
  readonly resumption: (port: GatedPort) => Resumption;
  /** From when on a frame was sent after time went on; by default the earliest resumption. */
  readonly liveFromNs?: bigint | undefined;
  readonly giveUpAfterMs?: number | undefined;
  /** Once aborted, the rest is delivered at once, in order. */
  readonly signal: AbortSignal;
}

interface Entry {
  readonly port: GatedPort;
  readonly fd: number | undefined;
}

/**
 * A gate and the ports it stands in.
 *
 * Invariants: every attached port has a slot of its own; either all of a list of ports are attached, or none;
 * detaching goes in reverse. The queue lengths of devices stay as they are: the kernel empties a device's
 * queueing disciplines when its txQueueLen changes, and with the gate nothing waits in a tap's ring anyway.
 */
export class GatedPorts {
  readonly gate: Gate;
  readonly #entries: Entry[] = [];
  readonly #giveBack: () => boolean;

  private constructor(gate: Gate, giveBack = () => false) {
    this.gate = gate;
    this.#giveBack = giveBack;
  }

  /** Makes a gate in pass mode. Throws StaghornError "host-unfit" where the kernel lacks what it takes. */
  static create(options: { slots: number; ringBytes?: number | undefined }): GatedPorts {
    try {
      return new GatedPorts(Gate.create(options));
    } catch (error) {
      throw asStaghornError(error, 'host-unfit', 'no gate can be made: ');
    }
  }

  /** The same with the spare gate, if it fits; once no port has it any more it becomes the spare one. */
  static createSparing(sizes: GateSizes, spare: SpareGate): GatedPorts {
    const gate = spare.take(sizes) ?? GatedPorts.create(sizes).gate;
    return new GatedPorts(gate, () => spare.keep(gate, sizes));
  }

  /**
   * Takes over the gate of an agent that died, with what it holds; `fdOf` gives a descriptor of a tap. Throws
   * StaghornError "not-found" if the gate is gone.
   */
  static adopt(
    identity: GateIdentity,
    ports: readonly GatedPort[],
    fdOf: (port: GatedPort) => number,
  ): GatedPorts {
    let gate: Gate;
    try {
      gate = Gate.open(identity);
    } catch (error) {
      throw asStaghornError(error, 'not-found', `gate ${identity.stateMapId} is gone: `);
    }
    const gated = new GatedPorts(gate);
    for (const port of ports)
      gated.#entries.push({ port, fd: port.place === 'tap' ? fdOf(port) : undefined });
    return gated;
  }

  get ports(): readonly GatedPort[] {
    return this.#entries.map(({ port }) => port);
  }

  /** Attaches to all of the ports, or to none. Throws StaghornError "network-unfit" with the port's name. */
  attach(ports: readonly PortToGate[]): void {
    const already = this.#entries.length;
    try {
      for (const port of ports) this.#attachOne(port);
    } catch (error) {
      this.#detachDownTo(already);
      throw error;
    }
  }

  /** Takes the programs off, the last first; goes on where one cannot be taken off, and returns why. */
  detach(): string[] {
    return this.#detachDownTo(0);
  }

  hold(): void {
    this.gate.setMode('hold');
  }

  pass(): void {
    this.gate.setMode('pass');
  }

  /** How many frames ever came to be held: grows as long as frames arrive. */
  arrivals(): number {
    return this.ports.reduce((sum, { slot }) => sum + this.gate.counters(slot).diverted, 0);
  }

  /** The frames that are held, in the order in which they came. */
  *held(): Generator<HeldOnPort, void, void> {
    for (const { slot, atNs, gsoSize, frame } of this.gate.held()) {
      yield { port: this.#nameOf(slot), atNs, gsoSize, frame };
    }
  }

  /**
   * Sees to it that every frame is accounted for: diverted = held + returned, and none failed since `since`.
   * Frames must not be on their way. Throws StaghornError "frames-lost" that names every port in question.
   */
  assertConserved(since: ReadonlyMap<string, PortCounters> = new Map()): void {
    const held = this.gate.countHeld();
    const problems: string[] = [];
    let first: string | undefined;
    for (const { name, slot } of this.ports) {
      const problem = describeLoss(this.gate.counters(slot), held[slot] ?? 0, since.get(name)?.failed ?? 0);
      if (problem === undefined) continue;
      first ??= name;
      problems.push(`${name}: ${problem}`);
    }
    if (first !== undefined)
      throw new StaghornError('frames-lost', problems.join('; '), { context: { port: first, problems } });
  }

  /** The counters of all ports, by name. */
  counters(): Map<string, PortCounters> {
    return new Map(this.ports.map(({ name, slot }) => [name, this.gate.counters(slot)]));
  }

  /** Delivers what is held; see {@link Gate.replay}. Throws StaghornError "network-unfit" if it was cut short. */
  async replay({ resumption, liveFromNs, giveUpAfterMs, signal }: ReplayPortsOptions): Promise<ReplayReport> {
    const ports = this.ports.map((port) => ({
      slot: port.slot,
      ifindex: port.ifindex,
      via: port.place,
      ...resumption(port),
    }));
    try {
      return await this.gate.replay({ ports, liveFromNs, giveUpAfterMs, signal });
    } catch (error) {
      throw asStaghornError(error, 'network-unfit', 'held frames were not all put back: ');
    }
  }

  /** Throws StaghornError "frames-lost" if a replay could not deliver everything, naming the ports. */
  assertDelivered(report: ReplayReport): void {
    const problems = report.ports
      .filter(({ undeliverable, missing }) => undeliverable + missing > 0)
      .map(({ slot, undeliverable, missing, lastErrno }) => {
        return `${this.#nameOf(slot)}: ${undeliverable} frames were refused (errno ${lastErrno}), ${missing} are missing`;
      });
    if (problems.length > 0)
      throw new StaghornError('frames-lost', problems.join('; '), { context: { problems } });
  }

  /** Lets go of the gate. What is attached stays, and goes on holding. */
  close(): void {
    const isFree = this.#entries.length === 0;
    if (!isFree || !this.#giveBack()) this.gate.close();
  }

  #attachOne(port: PortToGate): void {
    const slot = this.#freeSlot();
    const { name, ifindex, place } = port;
    if (this.#entries.some((entry) => entry.port.name === name)) {
      throw new StaghornError('conflict', `port ${name} is held already`, { context: { port: name } });
    }
    try {
      let madeClsact = false;
      if (port.place === 'tap') this.gate.attachTap({ fd: port.fd, slot });
      else ({ madeClsact } = this.gate.attachEgress({ ifindex, slot }));
      const fd = port.place === 'tap' ? port.fd : undefined;
      this.#entries.push({ port: { name, slot, ifindex, place, madeClsact }, fd });
    } catch (error) {
      throw new StaghornError('network-unfit', `port ${name} cannot be held: ${messageOf(error)}`, {
        cause: error,
        context: { port: name },
      });
    }
  }

  #detachDownTo(count: number): string[] {
    const problems: string[] = [];
    while (this.#entries.length > count) {
      const entry = this.#entries.pop();
      if (entry === undefined) break;
      const { name, ifindex, madeClsact } = entry.port;
      try {
        if (entry.fd !== undefined) this.gate.detachTap(entry.fd);
        else this.gate.detachEgress(ifindex, { madeClsact });
      } catch (error) {
        problems.push(`${name}: ${messageOf(error)}`);
      }
    }
    return problems;
  }

  #freeSlot(): number {
    const taken = new Set(this.ports.map(({ slot }) => slot));
    for (let slot = 0; slot < this.gate.slots; slot++) if (!taken.has(slot)) return slot;
    throw new StaghornError('network-unfit', `this gate has ${this.gate.slots} slots, and all are taken`);
  }

  #nameOf(slot: number): string {
    return this.#entries.find(({ port }) => port.slot === slot)?.port.name ?? `slot ${slot}`;
  }
}

/** What is wrong with a port's balance, in words; undefined if nothing is. */
export function describeLoss(counters: PortCounters, held: number, failedBefore = 0): string | undefined {
  const failed = counters.failed - failedBefore;
  if (failed > 0) return `${failed} frames found no room and passed`;
  const { diverted, returned } = counters;
  if (diverted === held + returned) return undefined;
  return `${diverted} frames were diverted, but ${held} are held and ${returned} were returned`;
}
