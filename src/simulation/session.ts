import { CutSchedule } from '../agent/snapshot/cut-schedule.ts';
import { Lease } from '../agent/session/lease.ts';
import { requireState, type SessionState } from '../agent/session/session-state.ts';
import { StaghornError } from '../errors/index.ts';
import { deferred } from '../protocol/deferred.ts';
import type { AgentParams, AgentResult } from '../protocol/rpc.ts';
import type { Time } from '../protocol/time.ts';
import type { HostObserver, SimulatedHost } from './host.ts';
import type { Random } from './random.ts';

export interface SessionParts {
  readonly host: SimulatedHost;
  /** The host's clock, as long as the agent lives. */
  readonly time: Time;
  readonly random: Random;
  readonly observer: HostObserver;
  readonly params: AgentParams<'arm'>;
  readonly onLost: (error: StaghornError) => void;
}

/**
 * One barrier on a simulated host: states, lease and schedule are the real agent's (src/agent/snapshot/stop-session.ts);
 * QEMU, gate and disk are taken to do what they are told, after a time.
 */
export class SimulatedSession {
  readonly #parts: SessionParts;
  readonly #lease: Lease;
  readonly #schedule: CutSchedule;
  readonly #cut = deferred<AgentResult<'cut'>>();
  readonly #stops = new Map<string, bigint>();
  #state: SessionState = 'armed';
  #ended: Promise<string> | undefined;
  #sealed = false;

  constructor(parts: SessionParts) {
    this.#parts = parts;
    this.#lease = new Lease(parts.params.leaseMs, () => this.giveUp('its lease ran out'), parts.time);
    this.#schedule = new CutSchedule(parts.time);
  }

  get isOpen(): boolean {
    return this.#state !== 'ended';
  }

  renew(): void {
    if (this.#ended === undefined) this.#lease.renew();
  }

  probe(targets: AgentParams<'probe'>['targets']): AgentResult<'probe'> {
    requireState('probe', this.#state);
    const taps = this.#parts.host.ports.slice(0, 4).map(({ tap }) => tap);
    return { sent: Object.fromEntries(Object.keys(targets).map((host) => [host, taps])) };
  }

  async listen(): Promise<AgentResult<'listen'>> {
    requireState('listen', this.#state);
    await this.#work(2);
    return { missing: [] };
  }

  schedule(atNs: bigint): AgentResult<'schedule'> {
    requireState('schedule', this.#state);
    const accepted = this.#schedule.set(atNs, () => void this.#makeCut(atNs));
    if (accepted) this.#state = 'scheduled';
    return { accepted };
  }

  recall(): void {
    requireState('recall', this.#state);
    this.#schedule.recall();
    this.#state = 'armed';
  }

  async cut(atNs: bigint): Promise<AgentResult<'cut'>> {
    requireState('cut', this.#state);
    if (this.#state === 'armed' && !this.schedule(atNs).accepted)
      throw new StaghornError('cut-too-late', 'this host was told of the cut too late');
    return this.#cut.promise;
  }

  async drain(): Promise<AgentResult<'drain'>> {
    requireState('drain', this.#state);
    const { host, params, observer } = this.#parts;
    await this.#work(3);
    observer.drained(params.barrier, host.name);
    const frames = host.vms.map((vm) => ({ vm, count: 0 }));
    return { waitedMs: 3, markers: { expected: 0, waitedMs: 0 }, frames, backlog: [] };
  }

  async save(): Promise<AgentResult<'save'>> {
    requireState('save', this.#state);
    const { host, params, observer } = this.#parts;
    await this.#work(5);
    observer.saved(params.barrier, host.name);
    const kept = { method: 'fork' as const, stateBytes: 13_000, stateNs: 1_000_000, forkNs: 400_000 };
    return { vms: host.vms.map((name) => ({ name, ...kept })) };
  }

  async resume(vms: AgentParams<'resume'>['vms']): Promise<AgentResult<'resume'>> {
    requireState('resume', this.#state);
    const { host, params, observer, time } = this.#parts;
    this.#state = 'resuming';
    observer.resumed(params.barrier, host.name);
    const lastNs = vms.reduce((last, { atNs }) => (atNs > last ? atNs : last), 0n);
    await this.#until(lastNs);
    host.stopped.clear();
    host.gate = 'open';
    this.#state = 'resumed';
    const nowNs = time.nowNs();
    return { vms: vms.map(({ name, atNs }) => ({ name, resumedAtNs: nowNs > lastNs ? nowNs : atNs })) };
  }

  async settle(): Promise<AgentResult<'settle'>> {
    requireState('settle', this.#state);
    await this.#work(2);
    if (this.#parts.params.snapshot === null) await this.#end(null);
    return { framesReplayed: 0, replayLatenessNs: null, external: [], warnings: [] };
  }

  async store(): Promise<AgentResult<'store'>> {
    requireState('store', this.#state);
    this.#state = 'storing';
    await this.#work(40);
    this.#state = 'stored';
    const vms = this.#parts.host.vms.map((name) => ({ name, ramBytes: 1 << 27, storedBytes: 1 << 20 }));
    return { bytes: vms.length << 20, vms };
  }

  async commit(snapshot: string): Promise<AgentResult<'commit'>> {
    requireState('commit', this.#state);
    await this.#work(5);
    this.#parts.host.parts.set(snapshot, 'sealed');
    this.#sealed = true;
    await this.#end(null);
    return { manifestSha256: '0'.repeat(64), bytes: this.#parts.host.vms.length << 20 };
  }

  /** Idempotent, and takes back what was sealed already, as the real one does. */
  async abort(reason: string): Promise<string> {
    const outcome = await this.#end(reason);
    const { host, params } = this.#parts;
    if (this.#sealed && params.snapshot !== null) host.parts.delete(params.snapshot);
    return outcome;
  }

  giveUp(reason: string): void {
    if (this.#ended !== undefined) return;
    const { host, params, observer, onLost } = this.#parts;
    observer.gaveUp(params.barrier, host.name);
    onLost(new StaghornError('vm-failed', reason));
    void this.abort(reason);
  }

  async #makeCut(atNs: bigint): Promise<void> {
    const { host, params, observer, time, random } = this.#parts;
    this.#state = 'stopping';
    await this.#until(atNs);
    const wokeNs = time.nowNs();
    host.gate = 'hold';
    observer.cut(params.barrier, host.name, params.snapshot);
    await this.#pause(random.delay(0.3));
    for (const vm of host.vms) {
      this.#stops.set(vm, time.nowNs());
      host.stopped.add(vm);
    }
    observer.stopped(params.barrier, host.name);
    if (this.#ended === undefined) this.#state = 'stopped';
    const vms = [...this.#stops].map(([name, stoppedAtNs]) => ({ name, stoppedAtNs }));
    const wakeLatenessNs = Number(wokeNs - atNs);
    this.#cut.resolve({ wakeLatenessNs, gateClosedAtNs: wokeNs, realtime: true, framesFromRings: 0, vms });
  }

  #end(abortReason: string | null): Promise<string> {
    this.#ended ??= this.#finish(abortReason);
    return this.#ended;
  }

  async #finish(abortReason: string | null): Promise<string> {
    const state = this.#state;
    this.#state = 'ending';
    this.#lease.end();
    this.#schedule.recall();
    // A cut that has begun is made to its end.
    if (state === 'stopping') await this.#cut.promise;
    this.#cut.reject(new StaghornError('cancelled', 'the barrier has ended'));
    await this.#pause(this.#parts.random.delay(2));
    const { host, params } = this.#parts;
    host.stopped.clear();
    host.gate = 'open';
    host.taken = null;
    if (abortReason !== null && params.snapshot !== null && !this.#sealed) host.parts.delete(params.snapshot);
    this.#state = 'ended';
    return 'every VM runs and every gate is open';
  }

  /** Something that takes a time on this host. @throws StaghornError 'cancelled' if the barrier ended meanwhile */
  async #work(meanMs: number): Promise<void> {
    const { host, random } = this.#parts;
    await this.#pause(random.delay(meanMs) * host.slowness);
    if (this.#ended !== undefined) throw new StaghornError('cancelled', 'the barrier was aborted meanwhile');
  }

  #until(instantNs: bigint): Promise<void> {
    return this.#pause(Math.max(0, Number(instantNs - this.#parts.time.nowNs()) / 1e6));
  }

  #pause(delayMs: number): Promise<void> {
    return new Promise((resolve) => this.#parts.time.after(delayMs, resolve));
  }
}
