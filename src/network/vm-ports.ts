import type { CutTap, CutTimes } from '../native/barrier.ts';
import type { CaughtMarker, GateIdentity, ReplayReport } from '../native/gate.ts';
import type { LeftoverJournal } from '../native/leftovers.ts';
import { StaghornError } from '../errors/index.ts';
import { drain, lookAtQueues, type DrainReport, type DrainSample } from './drain.ts';
import type { FrameInFlight } from './frame-file.ts';
import { GatedPorts } from './gated-ports.ts';
import { Leftovers } from './leftovers.ts';
import type { SpareGate } from './spare-gate.ts';
import type { VmPort } from './vm-port.ts';
import type { MarkerOrigin } from './markers/log.ts';

/** A frame that a port has not been given yet. */
export interface HeldFrame {
  readonly vm: string;
  readonly port: string;
  /** When it came, on CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  readonly gsoSize: number;
  readonly frame: Buffer;
}

/** What a VM had not read at the cut. */
export interface UnreadFrames {
  readonly port: VmPort;
  /** Out of its rings. */
  readonly kept: number;
  /** QEMU had read one that the guest had no buffer for, and has dropped it. */
  readonly dropped: boolean;
}

export interface VmResumption {
  /** When the VM resumes. */
  readonly atNs: bigint;
  /** For how long it was stopped: its frames are due this much later than they came. */
  readonly shiftNs: bigint;
}

export interface ReplaySummary {
  readonly delivered: number;
  /** Of those delivered, how many came from a snapshot; the others were sent while time stood still, or since. */
  readonly preloaded: number;
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
  readonly #leftovers: Leftovers;

  private constructor(gated: GatedPorts, ports: readonly VmPort[]) {
    this.#gated = gated;
    this.#leftovers = new Leftovers(ports.map((port, slot) => ({ slot, ...port })));
    this.ports = ports;
  }

  /** A gate that is on no port yet. @throws StaghornError 'host-unfit' */
  static create(options: {
    ports: readonly VmPort[];
    ringBytes: number;
    hold: boolean;
    spare?: SpareGate;
  }): VmPorts {
    const { ports, ringBytes, hold, spare } = options;
    const sizes = { slots: Math.max(1, ports.length), ringBytes };
    const gated = spare === undefined ? GatedPorts.create(sizes) : GatedPorts.createSparing(sizes, spare);
    if (hold) gated.hold();
    return new VmPorts(gated, ports);
  }

  /**
   * The gate that a dead process left on the ports, with what it holds and what that process had read from their
   * rings. @throws StaghornError 'not-found'
   */
  static adopt(options: {
    ports: readonly (VmPort & { readonly slot: number })[];
    identity: GateIdentity;
    leftoverFile: string;
  }): VmPorts {
    const { ports, identity, leftoverFile } = options;
    const gatedPorts = ports.map(({ name, slot, ifindex }) => ({
      name,
      slot,
      ifindex,
      place: 'tap' as const,
      madeClsact: false,
    }));
    const fdOf = new Map(ports.map(({ name, tapFds }) => [name, tapFds[0] ?? noDescriptor]));
    const gated = GatedPorts.adopt(identity, gatedPorts, ({ name }) => fdOf.get(name)!);
    const adopted = new VmPorts(gated, ports);
    adopted.#leftovers.adopt(leftoverFile, gated.gate);
    return adopted;
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
      this.ports.map(({ name, ifindex, tapFds }) => ({ name, ifindex, place: 'tap', fd: tapFds[0]! })),
    );
  }

  /** Makes a file for the frames that VMs will not have read from their rings. @throws StaghornError 'host-unfit' */
  prepareLeftovers(path: string): void {
    this.#leftovers.prepare(path, this.#gated.gate);
  }

  /** Whether markers that come are kept for `takeMarkers`. */
  set listening(on: boolean) {
    this.#gated.gate.listening = on;
  }

  /** The markers that came since the last look. */
  takeMarkers(): CaughtMarker[] {
    return this.#gated.gate.takeMarkers();
  }

  /** The rings as the barrier thread wants them, and where it puts what is left in them. */
  cutRings(): { taps: CutTap[]; journal: LeftoverJournal | null } {
    return { taps: this.#leftovers.cutTaps(), journal: this.#leftovers.journal };
  }

  /**
   * Once the VMs stand still: takes over what they had not read. It comes before everything that the gate holds.
   * @throws StaghornError 'frames-lost' if there was no room for all
   */
  takeLeftovers(cut: Pick<CutTimes, 'leftoversFull' | 'flippedNs' | 'stuckPorts'>): UnreadFrames[] {
    this.#leftovers.takeOver(cut.leftoversFull, cut.flippedNs);
    this.#leftovers.assertRoom();
    const frames = this.#leftovers.frames();
    return this.ports.flatMap((port) => {
      const slot = this.slotOf(port);
      const kept = frames.filter((frame) => frame.port === slot).length;
      const dropped = cut.stuckPorts.includes(slot);
      return kept > 0 || dropped ? [{ port, kept, dropped }] : [];
    });
  }

  /**
   * Waits until nothing is in flight towards the ports any more, and checks that every frame was kept.
   * @param awaited ports from which frames may still be on their way: their markers have not come
   * @throws StaghornError 'frames-lost', 'deadline-exceeded', 'cancelled'
   */
  async drain(wish: DrainWish, awaited: () => readonly MarkerOrigin[] = () => []): Promise<DrainReport> {
    const report = await drain({
      ...wish,
      watched: this.#watchedWith(wish),
      arrivals: () => this.#gated.arrivals(),
      awaited: () => awaited().length,
    });
    if (!report.complete) throw overdue(report, wish.boundMs, awaited());
    this.#gated.assertConserved();
    return report;
  }

  /** How the ports and what is watched stand now, for a flush. */
  look(watched: readonly number[]): DrainSample {
    return lookAtQueues(this.#watchedWith({ watched }), () => this.#gated.arrivals());
  }

  /**
   * Waits until nothing comes any more, or the bound; then drops what has come.
   * @param since an earlier look, when nobody sent anything any more; null: somebody may have since
   */
  async flush(
    wish: DrainWish,
    since: DrainSample | null = null,
  ): Promise<{ waitedMs: number; discarded: number }> {
    const { waitedMs } = await drain({
      ...wish,
      ...(since === null ? {} : { since }),
      watched: this.#watchedWith(wish),
      arrivals: () => this.#gated.arrivals(),
    });
    const discarded = this.#gated.gate.countHeld().reduce((sum, count) => sum + count, 0);
    this.#gated.gate.discard();
    return { waitedMs, discarded };
  }

  /** Everything that is held, of each port in order. */
  held(): HeldFrame[] {
    const vmOf = new Map(this.ports.map(({ name, vm }) => [name, vm]));
    const left = this.#leftovers.frames().flatMap(({ port: slot, atNs, gsoSize, frame }) => {
      const port = this.ports[slot];
      return port === undefined ? [] : [{ vm: port.vm, port: port.name, atNs, gsoSize, frame }];
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
    // A VM reads its ring first: what it had left there goes back in front of all others.
    const leftovers = await this.#leftovers.giveBack(this.#gated.gate.stateMemory);
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

  /** What is still held is given back at once, in order: its room is needed. */
  hurry(): void {
    this.#replaying.abort();
  }

  /** Takes the gate off. */
  close(): void {
    this.#gated.detach();
    this.#gated.close();
    this.#leftovers.close();
  }

  #watchedWith({ watched }: Pick<DrainWish, 'watched'>): number[] {
    return [...new Set([...this.ports.map(({ ifindex }) => ifindex), ...watched])];
  }
}

function overdue({ backlog }: DrainReport, boundMs: number, awaited: readonly MarkerOrigin[]): StaghornError {
  const queues = backlog.map(({ link, qdisc }) => `${link} (${qdisc})`).join(', ');
  const silent = awaited.map(({ host, tap }) => `port ${tap} of host ${host}`);
  const paths = silent.length === 0 ? '' : `; no marker came any more from ${silent.join(', ')}`;
  return new StaghornError(
    'deadline-exceeded',
    `frames were still in flight after ${boundMs} ms; they waited in ${queues || 'no queue that is watched'}${paths}`,
  );
}

/** The VM is gone and its tap with it. */
const noDescriptor = -1;

function summarize(
  { ports, latenessNs: { count, ...latenessNs } }: ReplayReport,
  leftovers: number,
): ReplaySummary {
  return {
    delivered: ports.reduce((sum, { delivered }) => sum + delivered, leftovers),
    preloaded: ports.reduce((sum, { preloaded }) => sum + preloaded, 0),
    latenessNs: count === 0 ? null : latenessNs,
  };
}
