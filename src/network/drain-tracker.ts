/** One look at a host's network. */
export interface DrainSample {
  readonly atMs: number;
  /** Frames that ever came into the gate. */
  readonly arrivals: number;
  readonly backlogs: readonly Backlog[];
  /** Ports elsewhere whose markers have not come: frames of theirs may be in front of them. */
  readonly awaited: number;
}

export interface Backlog {
  readonly link: string;
  readonly qdisc: string;
  readonly packets: number;
}

export interface DrainLimits {
  /** How long nothing may have moved. */
  readonly quietMs: number;
  /** How long to wait at most. */
  readonly boundMs: number;
}

export interface PeakBacklog {
  readonly link: string;
  readonly qdisc: string;
  readonly peakPackets: number;
}

export interface DrainReport {
  readonly waitedMs: number;
  /** How long nothing had moved at the end. */
  readonly quietMs: number;
  /** Until the last marker had come; as long as was waited, if one did not come. */
  readonly markersMs: number;
  /** Frames that came into the gate while it drained. */
  readonly heldFrames: number;
  /** Every queueing discipline in which frames waited, with the most that were seen. */
  readonly backlog: readonly PeakBacklog[];
  /** False: the time ran out first. */
  readonly complete: boolean;
}

export type DrainState = 'draining' | 'drained' | 'overdue';

/**
 * Decides when a host is drained: every awaited marker has come, every watched queue is empty, and no frame came
 * into the gate for a while.
 * Knows no clock and no kernel: it is fed with samples.
 */
export class DrainTracker {
  readonly #limits: DrainLimits;
  readonly #peaks = new Map<string, PeakBacklog>();
  #first: DrainSample | undefined;
  #last: DrainSample | undefined;
  #quietSinceMs = 0;
  #markersAtMs: number | undefined;
  #waiting = false;

  constructor(limits: DrainLimits) {
    this.#limits = limits;
  }

  push(sample: DrainSample): DrainState {
    this.#first ??= sample;
    const waiting = sample.backlogs.filter(({ packets }) => packets > 0);
    for (const { link, qdisc, packets } of waiting) this.#notePeak(link, qdisc, packets);
    const moved = this.#last === undefined || sample.arrivals !== this.#last.arrivals;
    this.#waiting = waiting.length > 0;
    if (moved || this.#waiting) this.#quietSinceMs = sample.atMs;
    if (sample.awaited === 0) this.#markersAtMs ??= sample.atMs;
    this.#last = sample;
    return this.#state();
  }

  report(): DrainReport {
    const atMs = this.#last?.atMs ?? 0;
    return {
      waitedMs: atMs - (this.#first?.atMs ?? 0),
      quietMs: atMs - this.#quietSinceMs,
      markersMs: (this.#markersAtMs ?? atMs) - (this.#first?.atMs ?? 0),
      heldFrames: (this.#last?.arrivals ?? 0) - (this.#first?.arrivals ?? 0),
      backlog: [...this.#peaks.values()],
      complete: this.#state() === 'drained',
    };
  }

  #state(): DrainState {
    if (this.#first === undefined || this.#last === undefined) return 'draining';
    const still = !this.#waiting && this.#last.atMs - this.#quietSinceMs >= this.#limits.quietMs;
    if (still && this.#markersAtMs !== undefined) return 'drained';
    return this.#last.atMs - this.#first.atMs >= this.#limits.boundMs ? 'overdue' : 'draining';
  }

  #notePeak(link: string, qdisc: string, packets: number): void {
    const key = `${link} ${qdisc}`;
    const peakPackets = Math.max(packets, this.#peaks.get(key)?.peakPackets ?? 0);
    this.#peaks.set(key, { link, qdisc, peakPackets });
  }
}
