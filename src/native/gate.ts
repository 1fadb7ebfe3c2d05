import { closeSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { loadAddon } from './addon.ts';
import { requireGateSizes } from './gate-sizes.ts';
import { ErrnoError } from './rtnetlink.ts';
import { setTapProgram } from './tap.ts';
import { addClsact, addEgressProgram, removeClsact, removeEgressProgram } from './traffic-control.ts';

export type GateMode = 'pass' | 'hold';

/** What finds a gate again after its process was killed: ids of its maps, and a number that proves them its own. */
export interface GateIdentity {
  readonly stateMapId: number;
  readonly ringMapId: number;
  readonly nonce: bigint;
}

export interface GateOptions {
  /** Ports it can have: 1 to 4096. */
  readonly slots: number;
  /** Room for held frames: a power of two, at least 256 KiB; each takes its length plus 56 bytes, rounded up. */
  readonly ringBytes?: number | undefined;
  /** Whether it holds from the start. */
  readonly hold?: boolean | undefined;
}

/** Counted since the gate was made. `diverted - returned` frames are held now. */
export interface PortCounters {
  readonly diverted: number;
  readonly returned: number;
  /** Frames of ours that came by on their way back. */
  readonly seen: number;
  readonly passed: number;
  /** Frames that should have been held and passed, because there was no room. */
  readonly failed: number;
  /** Marker frames (EtherType 0x88B5, payload beginning with "STAGMARK"); none reaches the port. */
  readonly markers: number;
}

export interface HeldFrame {
  readonly slot: number;
  /** Place in the order of all that the gate diverted on this port. */
  readonly seq: bigint;
  /** When it came, on CLOCK_MONOTONIC. */
  readonly atNs: bigint;
  readonly frame: Buffer;
  /** Bytes a segment if the frame is still to be segmented; 0 otherwise. */
  readonly gsoSize: number;
}

export type CaughtMarker = Pick<HeldFrame, 'slot' | 'atNs' | 'frame'>;

export interface FrameToReturn {
  readonly frame: Buffer;
  readonly gsoSize?: number | undefined;
}

export interface FrameToPreload extends FrameToReturn {
  /** When it is due, counted from the instant from which the port may have frames. */
  readonly offsetNs: bigint;
}

export interface ReplayPort {
  readonly slot: number;
  readonly ifindex: number;
  /** Where the program sits; by default where this object attached it, else in a tap. */
  readonly via?: 'tap' | 'egress' | undefined;
  /** The device's MTU if the program sits at its receive side: frames are let in there again (edge). */
  readonly receiveMtu?: number | undefined;
  /** A held frame is due this long after it came: the length of the pause. */
  readonly shiftNs: bigint;
  /** The instant on CLOCK_MONOTONIC before which nothing is delivered: when the VM resumes. */
  readonly notBeforeNs: bigint;
}

export interface ReplayOptions {
  /** Every port of the gate. */
  readonly ports: readonly ReplayPort[];
  /**
   * Frames that come from this instant on were sent after time went on, and are due at once. The gate turns to
   * pass then. By default the earliest `notBeforeNs`.
   */
  readonly liveFromNs?: bigint | undefined;
  /** How long a port may refuse a frame before it counts as undeliverable. */
  readonly giveUpAfterMs?: number | undefined;
  /** Once aborted, everything that is left is delivered at once, in order: nothing is ever dropped by it. */
  readonly signal?: AbortSignal | undefined;
}

export interface PortReplay {
  readonly slot: number;
  readonly delivered: number;
  /** Of those delivered, how many were preloaded; the others were held by the gate. */
  readonly preloaded: number;
  /** The device refused them: it is down, or its reader is gone. */
  readonly undeliverable: number;
  /** Nobody has them any more: preloaded by a process that died. */
  readonly missing: number;
  /** Why the last undeliverable one was refused; 0 if none was. */
  readonly lastErrno: number;
}

export interface ReplayReport {
  readonly ports: readonly PortReplay[];
  /** Delivery minus due time, of the `count` frames that had one of their own. */
  readonly latenessNs: {
    readonly count: number;
    readonly median: number;
    readonly p99: number;
    readonly max: number;
  };
  readonly hurried: boolean;
}

interface NativeReplayOptions {
  readonly ports: readonly {
    slot: number;
    ifindex: number;
    bypassQdisc: boolean;
    receiveMtu: number;
    shiftNs: bigint;
    notBeforeNs: bigint;
  }[];
  readonly liveFromNs: bigint;
  readonly giveUpAfterNs: bigint;
}

interface NativeGate {
  identity(): GateIdentity;
  memory(): ArrayBuffer;
  loadProgram(slot: number, egress: boolean): number;
  peek(position: bigint | null, maxBytes: number): { records: HeldFrame[]; position: bigint; more: boolean };
  countHeld(): Uint32Array;
  takeMarkers(): CaughtMarker[];
  discard(): void;
  reinject(ifindex: number, frames: readonly Required<FrameToReturn>[]): number;
  preload(slot: number, frames: readonly Required<FrameToPreload>[]): void;
  replay(options: NativeReplayOptions): Promise<ReplayReport & { readonly errno: number }>;
  hurry(): void;
  close(): void;
}

interface GateAddon {
  readonly Gate: {
    new (slots: number, ringBytes: number, mark: number, nonce: bigint): NativeGate;
    new (stateMapId: number, ringMapId: number, nonce: bigint): NativeGate;
  };
  sendFrames(ifindex: number, frames: readonly Buffer[]): void;
  testProgram(program: number, frame: Buffer, mark: number): { verdict: number; mark: number };
}

const addon = loadAddon() as GateAddon;

const DEFAULT_RING_BYTES = 64 * 1024 * 1024;
const PEEK_BYTES = 4 * 1024 * 1024;
const DEFAULT_GIVE_UP_MS = 10_000;
const NS_PER_MS = 1_000_000;

/** The layout of the state (native/gate/gate.h): 64 bytes for the host, then 64 a port. */
const MODE_PLACE = 0;
const LISTENING_PLACE = 5;
const WORDS_A_PORT = 8;
const counterPlaces = { diverted: 0, returned: 1, seen: 2, passed: 3, failed: 4, markers: 5 } as const;

const withSize = <Frame extends FrameToReturn>(frame: Frame) => ({ ...frame, gsoSize: frame.gsoSize ?? 0 });

/**
 * Holds frames back at the last step before their ports, and puts them back later.
 *
 * Invariants: a frame is either held or in its port, never both, never neither; while anything is held for a
 * port, whatever comes for it joins the end of its queue. What is held lives in the kernel, as long as a program
 * is attached anywhere: closing the gate, or being killed, loses nothing.
 */
export class Gate {
  /** The state itself: one 32-bit store at byte 0 turns the gate (0 pass, 1 hold). Outlives the gate. */
  readonly stateMemory: ArrayBuffer;
  readonly identity: GateIdentity;
  readonly slots: number;
  readonly #native: NativeGate;
  readonly #host: Int32Array;
  readonly #words: BigUint64Array;
  readonly #egress = new Map<number, { slot: number; madeClsact: boolean }>();

  private constructor(native: NativeGate) {
    this.#native = native;
    this.identity = native.identity();
    this.stateMemory = native.memory();
    this.#host = new Int32Array(this.stateMemory, 0, 16);
    this.#words = new BigUint64Array(this.stateMemory);
    this.slots = this.#words.length / WORDS_A_PORT - 1;
  }

  /** Needs CAP_BPF and CAP_NET_ADMIN. Throws an error with an errno's `code`. */
  static create({ slots, ringBytes = DEFAULT_RING_BYTES, hold = false }: GateOptions): Gate {
    requireGateSizes(slots, ringBytes);
    const random = randomBytes(12);
    // Not 0, which is the mark of every frame that nobody marked.
    const gate = new Gate(
      new addon.Gate(slots, ringBytes, random.readUInt32LE(0) | 1, random.readBigUInt64LE(4)),
    );
    if (hold) gate.setMode('hold');
    return gate;
  }

  /**
   * Opens a gate that another process made, with what it holds, and settles a delivery that was cut short.
   * Throws an error with code ENOENT or ESTALE if it no longer exists.
   */
  static open({ stateMapId, ringMapId, nonce }: GateIdentity): Gate {
    return new Gate(new addon.Gate(stateMapId, ringMapId, nonce));
  }

  get mode(): GateMode {
    return Atomics.load(this.#host, MODE_PLACE) === 1 ? 'hold' : 'pass';
  }

  setMode(mode: GateMode): void {
    Atomics.store(this.#host, MODE_PLACE, mode === 'hold' ? 1 : 0);
  }

  /** A descriptor of the program of a slot, for whoever attaches it; it is the caller's to close. */
  loadProgram(slot: number, place: 'tap' | 'egress'): number {
    return this.#native.loadProgram(this.#checked(slot), place === 'egress');
  }

  /** Attaches to the tap behind a descriptor, QEMU's own or a copy of it. Throws an ErrnoError. */
  attachTap({ fd, slot }: { fd: number; slot: number }): void {
    const program = this.loadProgram(slot, 'tap');
    try {
      setTapProgram(fd, program);
    } finally {
      closeSync(program);
    }
  }

  /** Takes whatever program is attached off a tap; does nothing where there is none. */
  detachTap(fd: number): void {
    setTapProgram(fd, null);
  }

  /** Attaches at clsact egress of a device, in front of its queueing discipline. Throws an ErrnoError. */
  attachEgress({ ifindex, slot }: { ifindex: number; slot: number }): { madeClsact: boolean } {
    const program = this.loadProgram(slot, 'egress');
    try {
      const madeClsact = addClsact(ifindex);
      try {
        addEgressProgram(ifindex, program);
      } catch (error) {
        if (madeClsact) removeClsact(ifindex);
        throw error;
      }
      this.#egress.set(ifindex, { slot, madeClsact });
      return { madeClsact };
    } finally {
      closeSync(program);
    }
  }

  /** Takes the program off, and the clsact qdisc if this gate made it (a gate opened anew must be told). */
  detachEgress(ifindex: number, { madeClsact = this.#egress.get(ifindex)?.madeClsact ?? false } = {}): void {
    removeEgressProgram(ifindex);
    this.#egress.delete(ifindex);
    if (madeClsact) removeClsact(ifindex);
  }

  counters(slot: number): PortCounters {
    const base = (1 + this.#checked(slot)) * WORDS_A_PORT;
    const read = (name: keyof typeof counterPlaces) =>
      Number(Atomics.load(this.#words, base + counterPlaces[name]));
    // What is returned was diverted before: in this order the difference is never negative.
    const returned = read('returned');
    return {
      returned,
      diverted: read('diverted'),
      seen: read('seen'),
      passed: read('passed'),
      failed: read('failed'),
      markers: read('markers'),
    };
  }

  /** What the ring holds, in the order in which it came, a few MiB at a time. Consumes nothing. */
  *held(): Generator<HeldFrame, void, void> {
    let position: bigint | null = null;
    for (let more = true; more;) {
      const page: ReturnType<NativeGate['peek']> = this.#native.peek(position, PEEK_BYTES);
      yield* page.records;
      ({ position, more } = page);
    }
  }

  /** All of {@link held} at once: up to the size of the ring. */
  peek(): HeldFrame[] {
    return [...this.held()];
  }

  /** How many frames are at hand for each slot: in the ring, or preloaded. */
  countHeld(): Uint32Array {
    return this.#native.countHeld();
  }

  /** Whether markers are kept for `takeMarkers`; they are dropped either way. */
  set listening(on: boolean) {
    Atomics.store(this.#host, LISTENING_PLACE, on ? 1 : 0);
  }

  /** The markers that came since the last look, whatever the mode; what is held stays as it is. */
  takeMarkers(): CaughtMarker[] {
    return this.#native.takeMarkers();
  }

  /** Frames from elsewhere line up behind what a slot holds. They live in this process only, until replayed. */
  preload(slot: number, frames: readonly FrameToPreload[]): void {
    this.#native.preload(this.#checked(slot), frames.map(withSize));
  }

  /** Puts frames into a tap now, past the gate, whatever it holds; returns how many the tap took. */
  reinject(ifindex: number, frames: readonly FrameToReturn[]): number {
    return this.#native.reinject(ifindex, frames.map(withSize));
  }

  /** Drops everything that is held. */
  discard(): void {
    this.#native.discard();
  }

  /**
   * Delivers everything that is held, each frame at its own time, and ends when every port has met: nothing is
   * held, and what comes passes. Throws an ErrnoError: ECANCELED if the gate was made to hold again or closed
   * meanwhile, ENODEV if frames are held for a port that is not among `ports`; what was not delivered stays held.
   */
  async replay({
    ports,
    liveFromNs,
    giveUpAfterMs = DEFAULT_GIVE_UP_MS,
    signal,
  }: ReplayOptions): Promise<ReplayReport> {
    const egressSlots = new Set([...this.#egress.values()].map(({ slot }) => slot));
    const native = ports.map(({ slot, ifindex, via, receiveMtu = 0, shiftNs, notBeforeNs }) => ({
      slot: this.#checked(slot),
      ifindex,
      bypassQdisc: via === undefined ? !egressSlots.has(slot) : via === 'tap',
      receiveMtu,
      shiftNs,
      notBeforeNs,
    }));
    const earliest = native.reduce(
      (least, port) => (port.notBeforeNs < least ? port.notBeforeNs : least),
      2n ** 62n,
    );
    const running = this.#native.replay({
      ports: native,
      liveFromNs: liveFromNs ?? (native.length === 0 ? 0n : earliest),
      giveUpAfterNs: BigInt(Math.round(giveUpAfterMs * NS_PER_MS)),
    });
    const hurry = () => {
      this.#native.hurry();
    };
    signal?.addEventListener('abort', hurry, { once: true });
    if (signal?.aborted === true) hurry();
    try {
      const { errno, ...report } = await running;
      if (errno !== 0) throw new ErrnoError(errno, 'replay');
      return report;
    } finally {
      signal?.removeEventListener('abort', hurry);
    }
  }

  /** Ends a replay that runs, and lets go of the maps. Programs stay attached and go on holding. */
  close(): void {
    this.#native.close();
  }

  #checked(slot: number): number {
    if (!Number.isInteger(slot) || slot < 0 || slot >= this.slots) {
      throw new RangeError(`slot ${slot} is not among the ${this.slots} of this gate`);
    }
    return slot;
  }
}

/**
 * Puts frames on a device as any program would: through its queueing discipline, unmarked. Takes some 10 ms a
 * call, for the kernel's sake. Throws an error with an errno's `code`: ENOBUFS if the device dropped one.
 */
export function sendFrames(ifindex: number, frames: readonly Buffer[]): void {
  addon.sendFrames(ifindex, frames);
}

/** A program's verdict on one frame that goes nowhere (BPF_PROG_TEST_RUN, Documentation/bpf/bpf_prog_run.rst). */
export function testProgram(program: number, frame: Buffer, mark = 0): { verdict: number; mark: number } {
  return addon.testProgram(program, frame, mark);
}
