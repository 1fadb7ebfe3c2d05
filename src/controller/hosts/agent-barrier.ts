import { randomUUID } from 'node:crypto';

import type { StaghornError } from '../../errors/index.ts';
import type { Progress } from '../../protocol/resources.ts';
import type { AgentMethod, AgentParams, AgentResult, ArmedPort } from '../../protocol/rpc.ts';
import { systemTime, type Time } from '../../protocol/time.ts';
import type { AgentLink } from './agent-link.ts';
import type { BarrierCall, Phase, Procedure } from '../barrier/procedures.ts';
import { BarrierRun, type BarrierPort, type CallOutcome } from '../barrier/run.ts';
import { planPause, toControllerClock, toHostClock } from '../barrier/planning.ts';
import type { ClockOffset } from './clock-offset.ts';
import { MarkedPaths, markerListenBoundMs } from './marked-paths.ts';

export const defaultLeaseMs = 10_000;
/** Room for held frames on each host: a power of two (docs/limits.md). */
export const defaultFrameBufferBytes = 64 * 1024 * 1024;

/** A barrier's own deadlines end a call; this only bounds what would never end. */
const callTimeoutMs = 2 * 60 * 60_000;
const abortTimeoutMs = 60_000;
const renewTimeoutMs = 5_000;
/** Progress of all hosts together is told this often; an operation remembers only so many events. */
const reportPeriodNs = 100_000_000n;

/** A host taking part in a barrier, with what is known of its clock. */
export interface BarrierHost {
  readonly name: string;
  readonly link: AgentLink;
  readonly clock: ClockOffset;
  /** Names of its VMs that take part; null: all. */
  readonly vms: readonly string[] | null;
  /** Interfaces that lead out of the experiment. */
  readonly externalPorts: readonly string[];
  readonly frameBufferBytes: number;
}

/** When each VM of a host stopped, or is to resume, on the controller's clock. */
export type VmInstants = ReadonlyMap<string, bigint>;

type Step = (host: BarrierHost, signal: AbortSignal) => Promise<CallOutcome>;

/** What snapshot, pause and restore share in speaking to the agents: calls by name, leases, trouble, resumption. */
export abstract class AgentBarrier implements BarrierPort {
  readonly id = randomUUID();
  readonly hosts: ReadonlyMap<string, BarrierHost>;
  /** When each VM went on, by host, on the controller's clock. */
  readonly resumes = new Map<string, VmInstants>();
  readonly markers = new MarkedPaths();
  readonly #report: (progress: Progress) => void;
  readonly #stopListening: (() => void)[] = [];
  readonly #bytesOf = new Map<string, { done: number; total: number }>();
  #doneBytes = 0;
  #totalBytes = 0;
  #nextReportNs = 0n;
  readonly #listeners = new Map<string, (trouble: { lost: boolean; error: StaghornError }) => void>();
  /** For how long every VM is stopped; set when the resumption is planned. */
  protected pauseNs = 0n;

  constructor(hosts: readonly BarrierHost[], report: (progress: Progress) => void) {
    this.hosts = new Map(hosts.map((host) => [host.name, host]));
    this.#report = report;
    for (const host of hosts) {
      const stop = host.link.listen(this.id, {
        progress: (step, doneBytes, totalBytes) => this.#progressed(host.name, step, doneBytes, totalBytes),
        trouble: (trouble) => this.#listeners.get(host.name)?.(trouble),
      });
      this.#stopListening.push(stop);
    }
  }

  /** The calls that this kind of barrier makes. */
  protected abstract readonly steps: Partial<Readonly<Record<BarrierCall, Step>>>;
  /** Ports that markers can be addressed to, by host. */
  protected abstract ports(): ReadonlyMap<string, readonly ArmedPort[]>;
  /** When VMs stopped, by host. */
  protected abstract stopsOf(host: BarrierHost): VmInstants;

  enter(phase: Phase): void {
    this.#report({ step: phase.name, message: phaseMessages[phase.name] ?? phase.name });
    if (phase.name === 'probe') this.markers.aim(this.ports());
    if (phase.name === 'listen') this.markers.trace();
    if (phase.name === 'resume') this.#planResume();
  }

  async call(hostName: string, call: BarrierCall, signal: AbortSignal): Promise<CallOutcome> {
    const step = this.steps[call];
    if (step === undefined) throw new TypeError(`this barrier has no step ${call}`);
    return step(this.hosts.get(hostName)!, signal);
  }

  /** Of the connections to the hosts. */
  get time(): Time {
    for (const { link } of this.hosts.values()) return link.time;
    return systemTime;
  }

  async abort(hostName: string, reason: string): Promise<void> {
    await this.ask(
      this.hosts.get(hostName)!,
      'abort',
      { barrier: this.id, reason },
      undefined,
      abortTimeoutMs,
    );
  }

  async renew(hostName: string): Promise<void> {
    await this.ask(this.hosts.get(hostName)!, 'renew', { barrier: this.id }, undefined, renewTimeoutMs);
  }

  onTrouble(
    hostName: string,
    listener: (trouble: { lost: boolean; error: StaghornError }) => void,
  ): () => void {
    this.#listeners.set(hostName, listener);
    return () => this.#listeners.delete(hostName);
  }

  /** Runs a procedure on every host from beginning to end. @throws StaghornError as BarrierRun.complete */
  async carryThrough(procedure: Procedure, signal: AbortSignal): Promise<void> {
    const hosts = [...this.hosts.keys()];
    try {
      await new BarrierRun({ procedure, hosts, port: this, leaseMs: defaultLeaseMs, signal }).complete();
    } finally {
      this.close();
    }
  }

  /** When the last VM went on, on the controller's clock; null if none has. */
  get lastResumeNs(): bigint | null {
    const instants = [...this.resumes.values()].flatMap((resumes) => [...resumes.values()]);
    return instants.reduce<bigint | null>(
      (last, instant) => (last === null || instant > last ? instant : last),
      null,
    );
  }

  close(): void {
    for (const stop of this.#stopListening) stop();
  }

  protected ask<M extends AgentMethod>(
    host: BarrierHost,
    method: M,
    params: AgentParams<M>,
    signal?: AbortSignal,
    timeoutMs: number = callTimeoutMs,
  ): Promise<AgentResult<M>> {
    return host.link.call(method, params, timeoutMs, signal);
  }

  protected async probe(host: BarrierHost, signal: AbortSignal): Promise<void> {
    const targets = this.markers.targetsOf(host.name);
    const params = { barrier: this.id, host: host.name, targets };
    this.markers.sent(host.name, (await this.ask(host, 'probe', params, signal)).sent);
  }

  protected async listen(host: BarrierHost, signal: AbortSignal): Promise<void> {
    const sources = this.markers.sourcesOf(host.name);
    const params = { barrier: this.id, sources, boundMs: markerListenBoundMs };
    this.markers.unheard(host.name, (await this.ask(host, 'listen', params, signal)).missing);
  }

  /** Every VM resumes equally long after its own stop. */
  protected async resume(host: BarrierHost, signal: AbortSignal): Promise<void> {
    const vms = [...this.stopsOf(host)].map(([name, stoppedAtNs]) => ({
      name,
      atNs: toHostClock(stoppedAtNs + this.pauseNs, host.clock),
    }));
    const { vms: resumed } = await this.ask(host, 'resume', { barrier: this.id, vms }, signal);
    this.resumes.set(
      host.name,
      new Map(resumed.map(({ name, resumedAtNs }) => [name, toControllerClock(resumedAtNs, host.clock)])),
    );
  }

  #planResume(): void {
    const hosts = [...this.hosts.values()];
    const stops = hosts.flatMap((host) => [...this.stopsOf(host).values()]);
    this.pauseNs = planPause(
      this.time.nowNs(),
      stops,
      hosts.map(({ clock }) => clock),
    );
  }

  #progressed(host: string, step: string, done: number, total: number): void {
    const before = this.#bytesOf.get(host) ?? { done: 0, total: 0 };
    this.#bytesOf.set(host, { done, total });
    // Kept as sums: hosts report ten times a second each.
    this.#doneBytes += done - before.done;
    this.#totalBytes += total - before.total;
    const nowNs = this.time.nowNs();
    if (nowNs < this.#nextReportNs && this.#doneBytes < this.#totalBytes) return;
    this.#nextReportNs = nowNs + reportPeriodNs;
    const message = phaseMessages[step] ?? step;
    this.#report({ step, message, doneBytes: this.#doneBytes, totalBytes: this.#totalBytes });
  }
}

const phaseMessages: Readonly<Record<string, string>> = {
  arm: 'making every host ready',
  probe: 'sending markers',
  listen: 'listening for markers',
  schedule: 'agreeing on the instant',
  cut: 'stopping time',
  freeze: 'waiting for frames in flight and keeping the state of every VM',
  drain: 'waiting for frames in flight',
  hold: 'time stands still',
  resume: 'letting time go on',
  settle: 'giving back held frames',
  store: 'storing RAM',
  commit: 'sealing the snapshot',
  check: 'checking the snapshot against the hosts',
  load: 'loading every VM',
  flush: 'waiting for frames of the time line that is given up',
};
