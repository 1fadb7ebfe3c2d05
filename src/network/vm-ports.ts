import type { LeftoverFrame } from '../native/barrier.ts';
import type { GateIdentity, ReplayReport } from '../native/gate.ts';
import { vnetHeaderBytes } from '../native/tap.ts';
import { StaghornError } from '../errors/index.ts';
import { drain, type DrainReport } from './drain.ts';
import type { FrameInFlight } from './frame-file.ts';
import { GatedPorts } from './gated-ports.ts';

/** A VM's port: its tap, with a descriptor that is a twin of QEMU's. */
export interface VmPort {
  readonly vm: string;
  /** Of the tap. */
  readonly name: string;
  readonly ifindex: number;
  readonly tapFd: number;
}

/** A frame that a port has not been given yet. */
export interface HeldFrame {
  readonly vm: string;
  readonly port: string;
  /** When it came, on CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  readonly gsoSize: number;
  readonly frame: Buffer;
}

export interface VmResumption {
  /** When the VM resumes. */
  readonly atNs: bigint;
  /** For how long it was stopped: its frames are due this much later than they came. */
  readonly shiftNs: bigint;
}

export interface ReplaySummary {
  readonly delivered: number;
  /** Of frames with a due time of their own; null if there were none. */
  readonly latenessNs: { readonly median: number; readonly p99: number; readonly max: number } | null;
}

export interface DrainWish {
  readonly boundMs: number;
  readonly quietMs: number;
  /** Devices whose queues must be empty beside the ports' own, by ifindex. */
  readonly watched: readonly number[];
  readonly signal: AbortSignal;
}

/**
 * The ports of the VMs of one barrier behind one gate.
 * Invariant: after `close` nothing of ours is on any port; until then a frame is in a port, or held, never both.
 */
export class VmPorts {
  readonly ports: readonly VmPort[];
  readonly #gated: GatedPorts;
  readonly #replaying = new AbortController();
  readonly #preloadedFrom = new Map<string, number>();
  #leftovers: readonly LeftoverFrame[] = [];

  private constructor(gated: GatedPorts, ports: readonly VmPort[]) {
    this.#gated = gated;
    this.ports = ports;
  }

  /** A gate that is on no port yet. @throws StaghornError 'host-unfit' */
  static create(options: { ports: readonly VmPort[]; ringBytes: number; hold: boolean }): VmPorts {
    const { ports, ringBytes, hold } = options;
    const gated = GatedPorts.create({ slots: Math.max(1, ports.length), ringBytes });
    if (hold) gated.hold();
    return new VmPorts(gated, ports);
  }

  /** The gate that a dead process left on the ports, with what it holds. @throws StaghornError 'not-found' */
  static adopt(options: {
    ports: readonly (VmPort & { readonly slot: number })[];
    identity: GateIdentity;
  }): VmPorts {
    const { ports, identity } = options;
    const gatedPorts = ports.map(({ name, slot, ifindex }) => ({
      name,
      slot,
      ifindex,
      place: 'tap' as const,
      madeClsact: false,
    }));
    const fdOf = new Map(ports.map(({ name, tapFd }) => [name, tapFd]));
    return new VmPorts(
      GatedPorts.adopt(identity, gatedPorts, ({ name }) => fdOf.get(name)!),
      ports,
    );
  }

  get identity(): GateIdentity {
    return this.#gated.gate.identity;
  }

  /** Memory whose first 32-bit word turns the gate: 1 holds. */
  get modeWord(): ArrayBuffer {
    return this.#gated.gate.stateMemory;
  }

  /** Slots are given in the order of the ports, so they are known before the gate is on any of them. */
  slotOf(port: VmPort): number {
    return this.ports.indexOf(port);
  }

  /** Puts the gate on every port, or on none. @throws StaghornError 'network-unfit' naming the port */
  attach(): void {
    this.#gated.attach(
      this.ports.map(({ name, ifindex, tapFd }) => ({ name, ifindex, place: 'tap', fd: tapFd })),
    );
  }

  /** The taps as the barrier thread wants them; `takeLeftovers` names them by their place here. */
  cutTaps(): { fd: number; headerBytes: number }[] {
    return this.ports.map(({ tapFd }) => ({ fd: tapFd, headerBytes: vnetHeaderBytes(tapFd) }));
  }

  /** Takes over frames that a VM had not read from its ring: they come before everything that the gate holds. */
  takeLeftovers(leftovers: readonly LeftoverFrame[]): void {
    this.#leftovers = leftovers;
  }

  /**
   * Waits until nothing is in flight towards the ports any more, and checks that every frame was kept.
   * @throws StaghornError 'frames-lost', 'deadline-exceeded', 'cancelled'
   */
  async drain(wish: DrainWish): Promise<DrainReport> {
    const watched = [...new Set([...this.ports.map(({ ifindex }) => ifindex), ...wish.watched])];
    const report = await drain({ ...wish, watched, arrivals: () => this.#gated.arrivals() });
    if (!report.complete) {
      const queues = report.backlog.map(({ link, qdisc }) => `${link} (${qdisc})`).join(', ');
      const text = `frames were still in flight after ${wish.boundMs} ms; they waited in ${queues || 'no queue that is watched'}`;
      throw new StaghornError('deadline-exceeded', text);
    }
    this.#gated.assertConserved();
    return report;
  }

  /** Waits until nothing comes any more, or the bound; then drops what has come. */
  async flush(wish: DrainWish): Promise<{ waitedMs: number; discarded: number }> {
    const watched = [...new Set([...this.ports.map(({ ifindex }) => ifindex), ...wish.watched])];
    const { waitedMs } = await drain({ ...wish, watched, arrivals: () => this.#gated.arrivals() });
    const discarded = this.#gated.gate.countHeld().reduce((sum, count) => sum + count, 0);
    this.#gated.gate.discard();
    return { waitedMs, discarded };
  }

  /** Everything that is held, of each port in order. */
  held(): HeldFrame[] {
    const vmOf = new Map(this.ports.map(({ name, vm }) => [name, vm]));
    const left = this.#leftovers.map(({ tapIndex, atNs, frame }) => {
      const { vm, name } = this.ports[tapIndex]!;
      return { vm, port: name, atNs, gsoSize: 0, frame };
    });
    return [...left, ...[...this.#gated.held()].map((frame) => ({ ...frame, vm: vmOf.get(frame.port)! }))];
  }

  /**
   * Lines up frames of a stored snapshot; they are due at their offsets after the resumption.
   * @param begins after a crash in the middle of their replay: what `preloadedFrom` was, by port; those that a port
   * has been given already are left out
   */
  preload(frames: readonly FrameInFlight[], begins: ReadonlyMap<string, number> = new Map()): void {
    for (const { name, slot } of this.#gated.ports) {
      const { returned } = this.#gated.gate.counters(slot);
      const begin = begins.get(name) ?? returned;
      this.#preloadedFrom.set(name, begin);
      const own = frames.filter(({ port }) => port === name).slice(returned - begin);
      if (own.length > 0) this.#gated.gate.preload(slot, own);
    }
  }

  /** How many frames the gate had returned to a port before those of a stored snapshot. */
  preloadedFrom({ name }: VmPort): number {
    return this.#preloadedFrom.get(name) ?? 0;
  }

  /**
   * Opens the gate and gives back what it holds, each frame at its own time after its VM's resumption. Frames
   * that come in the meantime queue behind those that are held for the same port.
   * @throws StaghornError 'frames-lost' if a port did not take its frames
   */
  async replay(liveFromNs: bigint, resumptions: ReadonlyMap<string, VmResumption>): Promise<ReplaySummary> {
    const vmOf = new Map(this.ports.map(({ name, vm }) => [name, vm]));
    const leftovers = this.#returnLeftovers();
    const report = await this.#gated.replay({
      liveFromNs,
      signal: this.#replaying.signal,
      resumption: ({ name }) => {
        const { atNs, shiftNs } = resumptions.get(vmOf.get(name)!) ?? { atNs: liveFromNs, shiftNs: 0n };
        return { notBeforeNs: atNs, shiftNs };
      },
    });
    this.#gated.assertDelivered(report);
    return summarize(report, leftovers);
  }

  /** Takes the gate off. */
  close(): void {
    this.#gated.detach();
    this.#gated.close();
  }

  /** A VM reads its ring first: what it had left there goes back in front of all others. */
  #returnLeftovers(): number {
    let count = 0;
    for (const [place, { ifindex }] of this.ports.entries()) {
      const frames = this.#leftovers.filter(({ tapIndex }) => tapIndex === place);
      if (frames.length > 0) count += this.#gated.gate.reinject(ifindex, frames);
    }
    this.#leftovers = [];
    return count;
  }
}

function summarize(
  { ports, latenessNs: { count, ...latenessNs } }: ReplayReport,
  leftovers: number,
): ReplaySummary {
  return {
    delivered: ports.reduce((sum, { delivered }) => sum + delivered, leftovers),
    latenessNs: count === 0 ? null : latenessNs,
  };
}
