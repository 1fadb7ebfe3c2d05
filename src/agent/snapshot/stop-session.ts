import { messageOf, StaghornError } from '../../errors/index.ts';
import { monotonicNs } from '../../native/clock.ts';
import { deferred } from '../../protocol/deferred.ts';
import type { Logger } from '../../protocol/logger.ts';
import type { AgentParams, AgentResult, CutReport } from '../../protocol/rpc.ts';
import { systemTime } from '../../protocol/time.ts';
import type { ControlledVm } from '../../vmm/controlled-vm.ts';
import { longestChain } from '../../vmm/disks/shorten.ts';
import type { QemuProcess } from '../../vmm/qemu-process.ts';
import type { IntentJournal } from '../session/intent.ts';
import { armedPorts, markerPorts } from '../session/armed-ports.ts';
import { MarkerExchange } from '../session/marker-exchange.ts';
import { BufferWatch } from './buffer-watch.ts';
import { CutSchedule } from './cut-schedule.ts';
import { intentOf } from '../session/intent-of-group.ts';
import { Lease } from '../session/lease.ts';
import type { NetworkWatch } from './network-watch.ts';
import { requireState, type SessionState } from '../session/session-state.ts';
import type { SnapshotWriter } from './snapshot-writer.ts';
import type { VmGroup } from '../session/vm-group.ts';

export interface SessionReports {
  progress(step: string, doneBytes: number, totalBytes: number): void;
  /** The session ended the barrier by itself. */
  lost(error: StaghornError): void;
}

export interface StopSessionParts {
  readonly params: AgentParams<'arm'>;
  readonly group: VmGroup;
  /** What else is plugged into the host's switches, by ifindex: frames in flight may wait there. */
  readonly switchedDevices: readonly number[];
  /** Null: time is only stopped, nothing is saved. */
  readonly writer: SnapshotWriter | null;
  readonly watch: NetworkWatch;
  /** What was found while arming that will not be kept, in words. */
  readonly warnings: readonly string[];
  readonly journal: IntentJournal;
  readonly reports: SessionReports;
  readonly log: Logger;
}

/**
 * One barrier that stops running VMs, on this host: a snapshot or a pause. States: session-state.ts.
 *
 * Invariants:
 * - an intent is on disk from before the gate is attached until every VM runs and every gate is gone;
 * - `#finish` is the only way out, is run once, and always ends with every VM running that ran before.
 */
export class StopSession {
  readonly barrier: string;
  readonly #parts: StopSessionParts;
  readonly #lease: Lease;
  readonly #buffers: BufferWatch;
  readonly #work = new AbortController();
  readonly #stops = new Map<string, bigint>();
  readonly #markers: MarkerExchange;
  readonly #schedule = new CutSchedule({ ...systemTime, nowNs: monotonicNs });
  #state: SessionState = 'armed';
  #cutting: Promise<CutReport> | undefined;
  readonly #cut = deferred<CutReport>();
  #noting: Promise<void> = Promise.resolve();
  #ended: Promise<string> | undefined;
  #sealed = false;

  constructor(parts: StopSessionParts) {
    this.barrier = parts.params.barrier;
    this.#parts = parts;
    this.#markers = new MarkerExchange(this.barrier, parts.group.ports, markerPorts(parts.group.vms));
    this.#lease = new Lease(parts.params.leaseMs, () =>
      this.#giveUp('its lease ran out: the controller went silent'),
    );
    parts.watch.onChange((change) => this.#giveUp(change));
    this.#buffers = new BufferWatch(
      [parts.group.ports.identity, ...(parts.group.edge === null ? [] : [parts.group.edge.identity])].map(
        ({ ringMapId }) => ringMapId,
      ),
    );
    for (const vm of parts.group.vms) {
      void vm.qmp.closed.then(() => this.#vmGone(vm));
      vm.disks.watch((error) => this.#giveUp(error));
    }
  }

  get description(): AgentResult<'arm'> {
    const { group, warnings } = this.#parts;
    return { ports: armedPorts(group.vms), warnings: [...warnings] };
  }

  /** VMs whose disks' chains of images are to be shortened once the barrier has ended. */
  get longChains(): QemuProcess[] {
    const { vms } = this.#parts.group;
    return vms.filter(({ disks }) => disks.longestChain > longestChain).map(({ process }) => process);
  }

  get isOpen(): boolean {
    return this.#state !== 'ended';
  }

  renew(): void {
    this.#lease.renew();
  }

  async probe(params: Omit<AgentParams<'probe'>, 'barrier'>): Promise<AgentResult<'probe'>> {
    requireState('probe', this.#state);
    return { sent: await this.#markers.probe(params, this.#work.signal) };
  }

  async listen(params: Omit<AgentParams<'listen'>, 'barrier'>): Promise<AgentResult<'listen'>> {
    requireState('listen', this.#state);
    return { missing: await this.#markers.listen(params, this.#work.signal) };
  }

  /** Agrees to be cut at the instant, unless it is too near to make everything ready. */
  schedule(atNs: bigint): AgentResult<'schedule'> {
    requireState('schedule', this.#state);
    const accepted = this.#schedule.set(atNs, () => {
      this.#makeCut(atNs).then(this.#cut.resolve, this.#cut.reject);
    });
    if (accepted) this.#state = 'scheduled';
    return { accepted };
  }

  /** @throws StaghornError 'cut-too-late' if the cut has begun */
  recall(): void {
    requireState('recall', this.#state);
    this.#schedule.recall();
    this.#state = 'armed';
  }

  async cut(atNs: bigint): Promise<CutReport> {
    requireState('cut', this.#state);
    if (this.#state === 'armed' && !this.schedule(atNs).accepted)
      throw new StaghornError('cut-too-late', 'this host was told of the cut too late');
    return this.#cut.promise;
  }

  async #makeCut(atNs: bigint): Promise<CutReport> {
    this.#state = 'stopping';
    const { group, writer } = this.#parts;
    this.#buffers.start((full) => {
      group.hurry();
      this.#giveUp(full);
    });
    this.#cutting = group.stopAt(atNs, this.#work.signal, (name, stoppedAtNs) =>
      this.#stops.set(name, stoppedAtNs),
    );
    const report = await this.#cutting;
    this.#requireOpen();
    this.#markers.sendLast();
    // Not before all stand still: saving one would take the CPU from the stop of the next.
    for (const vm of group.vms) writer?.keep(vm, this.#work.signal);
    // Beside the critical path: it is awaited before time goes on.
    this.#noting = this.#writeIntent('armed');
    this.#noting.catch(() => undefined);
    this.#state = 'stopped';
    return report;
  }

  async drain(options: { boundMs: number; quietMs: number }): Promise<AgentResult<'drain'>> {
    requireState('drain', this.#state);
    const { ports, vms } = this.#parts.group;
    const { waitedMs, markersMs, backlog } = await ports.drain(
      { ...options, watched: this.#parts.switchedDevices, signal: this.#work.signal },
      () => this.#markers.awaited(),
    );
    this.#parts.group.edge?.assertKept();
    await this.#parts.writer?.keepSwitches(this.#work.signal);
    const held = ports.held();
    this.#parts.writer?.keepFrames(held, this.#stops);
    const frames = vms.map(({ name }) => ({ vm: name, count: held.filter(({ vm }) => vm === name).length }));
    const markers = { expected: this.#markers.expected, waitedMs: markersMs };
    return { waitedMs, markers, frames, backlog: [...backlog] };
  }

  async save(): Promise<AgentResult<'save'>> {
    requireState('save', this.#state);
    return { vms: await this.#requireWriter().kept() };
  }

  async resume(vms: AgentParams<'resume'>['vms']): Promise<AgentResult<'resume'>> {
    requireState('resume', this.#state);
    this.#state = 'resuming';
    // Every host is drained.
    this.#markers.stop();
    this.#endWatches();
    const instants = new Map(vms.map(({ name, atNs }) => [name, atNs]));
    const resumed = await this.#parts.group.resumeAt(instants, this.#stops);
    await this.#noting;
    this.#requireOpen();
    await this.#writeIntent('resumed');
    this.#parts.writer?.resumed(resumed);
    this.#state = 'resumed';
    return { vms: resumed };
  }

  async settle(): Promise<AgentResult<'settle'>> {
    requireState('settle', this.#state);
    const { group, writer, watch } = this.#parts;
    const report = await group.replayed();
    const warnings = [...watch.warnings, ...(await group.released())];
    const external = group.edge?.counts() ?? [];
    if (writer === null) await this.#end();
    return {
      framesReplayed: report?.delivered ?? 0,
      replayLatenessNs: report?.latenessNs ?? null,
      external,
      warnings: [...this.#parts.group.warnings, ...warnings],
    };
  }

  async store(): Promise<AgentResult<'store'>> {
    requireState('store', this.#state);
    this.#state = 'storing';
    const report = await this.#requireWriter().store(this.#work.signal, (done, total) =>
      this.#parts.reports.progress('store', done, total),
    );
    this.#requireOpen();
    this.#state = 'stored';
    return report;
  }

  async commit(params: AgentParams<'commit'>): Promise<AgentResult<'commit'>> {
    requireState('commit', this.#state);
    const sealed = await this.#requireWriter().seal(params);
    this.#sealed = true;
    await this.#end();
    return sealed;
  }

  /** Idempotent; @returns in which condition the host is left. */
  abort(reason: string): Promise<string> {
    this.#ended ??= this.#finish(reason);
    return this.#ended;
  }

  /** The same, and a snapshot that was sealed here already goes too: another host has failed to seal its part. */
  async takeBack(reason: string): Promise<string> {
    const outcome = await this.abort(reason);
    if (!this.#sealed) return outcome;
    await this.#parts.writer?.discard();
    return `${outcome}; the snapshot was removed`;
  }

  async #end(): Promise<void> {
    this.#ended ??= this.#finish(null);
    await this.#ended;
  }

  async #finish(abortReason: string | null): Promise<string> {
    const { group, writer, journal, log } = this.#parts;
    const state = this.#state;
    this.#state = 'ending';
    this.#lease.end();
    this.#schedule.recall();
    this.#cut.reject(new StaghornError('cancelled', `barrier ${this.barrier} has ended`));
    this.#markers.stop();
    this.#endWatches();
    if (abortReason !== null) this.#work.abort(new StaghornError('cancelled', abortReason));
    await this.#cutting?.catch(() => undefined);
    await this.#noting.catch(() => undefined);
    const problems: string[] = [];
    if (state === 'stopping' || state === 'stopped' || state === 'resuming') {
      problems.push(...(await group.thaw(this.#stops)));
    } else {
      await group.replayed().catch((error: unknown) => problems.push(messageOf(error)));
    }
    // Only now: what saves a VM that hangs must not keep the others from going on.
    await writer?.settled();
    if (abortReason !== null) await writer?.discard();
    await Promise.allSettled(group.vms.map(({ disks }) => disks.goOn()));
    await this.#markers.ebb();
    await group.close();
    await this.#parts.watch.close();
    await journal.remove(this.barrier);
    this.#state = 'ended';
    const outcome = problems.length === 0 ? 'every VM runs and every gate is open' : problems.join('; ');
    if (abortReason !== null) log.warn({ barrier: this.barrier, outcome }, `barrier aborted: ${abortReason}`);
    return outcome;
  }

  #giveUp(reason: string | StaghornError): void {
    if (this.#ended !== undefined) return;
    const error = typeof reason === 'string' ? new StaghornError('vm-failed', reason) : reason;
    this.#parts.reports.lost(error);
    void this.abort(error.message);
  }

  /** Time goes on, or is about to. */
  #endWatches(): void {
    this.#buffers.stop();
    this.#parts.watch.stop();
  }

  #vmGone(vm: ControlledVm): void {
    if (this.#state === 'ending' || this.#state === 'ended' || this.#state === 'stored') return;
    this.#giveUp(`VM ${vm.name} ended or closed its QMP connection during the barrier`);
  }

  /** A step that comes to its end during an abort must neither write an intent nor change the state any more. */
  #requireOpen(): void {
    if (this.#ended !== undefined)
      throw new StaghornError('cancelled', `barrier ${this.barrier} was aborted in the meantime`);
  }

  #requireWriter(): SnapshotWriter {
    if (this.#parts.writer === null) throw new StaghornError('wrong-state', 'this barrier only stops time');
    return this.#parts.writer;
  }

  #writeIntent(phase: 'armed' | 'resumed'): Promise<void> {
    const { group, params, journal } = this.#parts;
    return journal.write(
      intentOf({
        barrier: params.barrier,
        kind: 'stop',
        phase,
        snapshot: params.snapshot,
        group,
        stops: this.#stops,
      }),
    );
  }
}
