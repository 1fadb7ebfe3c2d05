import { messageOf, StaghornError } from '../../errors/index.ts';
import type { DrainSample } from '../../network/drain.ts';
import type { FrameInFlight } from '../../network/frame-file.ts';
import type { Logger } from '../../protocol/logger.ts';
import type { AgentParams, AgentResult } from '../../protocol/rpc.ts';
import type { HostManifest } from '../../store/manifest.ts';
import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import type { QemuProcess } from '../../vmm/qemu-process.ts';
import type { DiskDirectory } from '../../vmm/disks/disk-directory.ts';
import { terminateVm } from '../../vmm/terminate.ts';
import { switchedDevices, type HostNetwork } from '../host-inventory.ts';
import { armedPorts, markerPorts } from '../session/armed-ports.ts';
import { MarkerExchange } from '../session/marker-exchange.ts';
import type { Intent, IntentJournal } from '../session/intent.ts';
import { intentOf, intentWithoutGroup } from '../session/intent-of-group.ts';
import { Lease } from '../session/lease.ts';
import { unplugTaps } from '../recovery/orphan-taps.ts';
import { VmReset } from './reset-vms.ts';
import { restoreNetwork, restorePorts } from './restore-network.ts';
import { restoreMacTables } from './switch-restore.ts';
import { readStoredFrames } from '../session/stored-frames.ts';
import {
  openRestoredGroup,
  startVms,
  type KeptBetweenRestores,
  type RestoredTime,
  type StartedVm,
} from './restored-vms.ts';
import { requireState, type SessionState } from '../session/session-state.ts';
import type { SessionReports } from '../snapshot/stop-session.ts';
import { removeUnusedImages } from '../parts/unused-images.ts';
import type { VmGroup } from '../session/vm-group.ts';

export interface RestoreSessionParts {
  readonly params: AgentParams<'restoreCheck'>;
  readonly manifest: HostManifest;
  readonly directory: string;
  /** It is all that this host had in the snapshot: its switches are to know what they knew. */
  readonly whole: boolean;
  /** What will not be as it was, in words. */
  readonly warnings: readonly string[];
  /** VMs of the snapshot that run now, and would be destroyed. */
  readonly running: readonly QemuProcess[];
  /** Resolves when the checksums of RAM have been recomputed, if that was asked for. */
  readonly verified: Promise<void>;
  readonly runDirectory: string;
  readonly disks: DiskDirectory;
  readonly store: SnapshotStore;
  /** As it was found by the check. */
  readonly surroundings: HostNetwork;
  readonly kept: KeptBetweenRestores;
  readonly journal: IntentJournal;
  readonly reports: SessionReports;
  readonly log: Logger;
}

/**
 * One restore on this host. States: session-state.ts.
 *
 * Invariants:
 * - nothing that runs is touched before `prepare`;
 * - no restored VM runs before `resume`, and after an abort none is left.
 */
export class RestoreSession {
  readonly barrier: string;
  readonly #parts: RestoreSessionParts;
  readonly #lease: Lease;
  readonly #work = new AbortController();
  #state: SessionState = 'checked';
  #touched = false;
  #allRun = false;
  #preparing: Promise<unknown> = Promise.resolve();
  #frames: readonly FrameInFlight[] = [];
  readonly #warnings: string[] = [];
  #started: readonly StartedVm[] = [];
  /** How the queues were when VMs that are put back in place had just stopped. */
  #atRest: DrainSample | null = null;
  #group: VmGroup | undefined;
  #markers: MarkerExchange | undefined;
  #ended: Promise<string> | undefined;

  constructor(parts: RestoreSessionParts) {
    this.barrier = parts.params.barrier;
    this.#parts = parts;
    this.#lease = new Lease(parts.params.leaseMs, () =>
      this.#giveUp('its lease ran out: the controller went silent'),
    );
    // Told by `prepare`, which waits for it.
    parts.verified.catch(() => undefined);
  }

  get description(): AgentResult<'restoreCheck'> {
    const { running, manifest, warnings } = this.#parts;
    const names = (vms: readonly { name: string }[]) => vms.map(({ name }) => name);
    return { running: names(running), vms: names(manifest.vms), warnings: [...warnings] };
  }

  get #taps(): string[] {
    return this.#parts.manifest.vms.flatMap(({ nics }) => nics.map(({ tap }) => tap));
  }

  /** What else is plugged into the host's switches: frames in flight may wait there. */
  get #watched(): number[] {
    return switchedDevices(this.#parts.surroundings);
  }

  get isOpen(): boolean {
    return this.#state !== 'ended';
  }

  renew(): void {
    this.#lease.renew();
  }

  async prepare(elapsedNs: bigint): Promise<AgentResult<'restorePrepare'>> {
    requireState('prepare', this.#state);
    this.#state = 'stopping';
    const preparing = this.#prepare(elapsedNs);
    this.#preparing = preparing.catch(() => undefined);
    return preparing;
  }

  async #prepare(elapsedNs: bigint): Promise<AgentResult<'restorePrepare'>> {
    const { manifest, directory, verified, params } = this.#parts;
    const taps = new Set(this.#taps);
    const frames = await readStoredFrames(directory, manifest, params.placement);
    this.#frames = frames.filter(({ port }) => taps.has(port));
    this.#touched = true;
    const startedAtMs = performance.now();
    const clock = { mode: params.clock, elapsedNs };
    const group = (await this.#reset(clock)) ?? (await this.#startAfresh(clock));
    await verified;
    this.#markers = new MarkerExchange(this.barrier, group.ports, markerPorts(group.vms));
    // Another host may be loaded, and send, before this one is told of it.
    group.ports.listening = true;
    this.#state = 'loaded';
    return {
      vms: group.vms.map(({ name }) => name),
      ports: armedPorts(group.vms),
      loadMs: performance.now() - startedAtMs,
      advancedNs: this.#started.reduce(
        (most, { clocks: { virtualNs } }) => (virtualNs > most ? virtualNs : most),
        0n,
      ),
    };
  }

  /** @returns null if VMs have to be started again; whatever was done to them before does not matter then */
  async #reset(clock: RestoredTime): Promise<VmGroup | null> {
    const { manifest, directory, params, kept, log } = this.#parts;
    const { signal } = this.#work;
    try {
      const { running, surroundings } = this.#parts;
      const reset = await VmReset.plan({ ...this.#loadOptions(clock), running, surroundings });
      if (reset === null) return null;
      await this.#writeIntent('loading');
      this.#started = reset.started;
      const warnings: string[] = [];
      const group = await reset.run(async () => {
        this.#atRest = this.#requireGroup().ports.look(this.#watched);
        const switches = { directory, madeTaps: new Set<string>(), flows: kept.flows, signal };
        warnings.push(...(await restorePorts(manifest, switches)), ...(await this.#teachSwitches()));
      });
      this.#warnings.push(...warnings);
      return group;
    } catch (error) {
      signal.throwIfAborted();
      log.warn(
        { barrier: params.barrier },
        `VMs were not put back in place, they are started again: ${messageOf(error)}`,
      );
      await this.#group?.close();
      this.#group = undefined;
      this.#atRest = null;
      return null;
    }
  }

  async #startAfresh(clock: RestoredTime): Promise<VmGroup> {
    const { manifest, directory, running, disks, kept } = this.#parts;
    await Promise.all(running.map((vm) => terminateVm(vm)));
    this.#started = [];
    await this.#writeIntent('loading');
    this.#warnings.push(
      ...(await restoreNetwork(manifest, { directory, flows: kept.flows, signal: this.#work.signal })),
    );
    const options = this.#loadOptions(clock);
    this.#started = await startVms({ ...options, disks, onStarted: (vms) => (this.#started = vms) });
    const taught = this.#teachSwitches();
    taught.catch(() => undefined);
    const group = await openRestoredGroup(this.#started, options);
    this.#warnings.push(...(await taught));
    return group;
  }

  #loadOptions(clock: RestoredTime) {
    const { manifest, directory, runDirectory, params, kept } = this.#parts;
    return {
      ...{ manifest, directory, runDirectory, clock, kept, signal: this.#work.signal },
      frameBufferBytes: params.frameBufferBytes,
      beforeAttach: async (opened: VmGroup) => {
        this.#group = opened;
        await this.#writeIntent('armed');
        // After the intent: whoever finds it takes these back too.
        opened.buffers?.enlarge();
      },
    };
  }

  #teachSwitches(): Promise<string[]> {
    const { whole, manifest } = this.#parts;
    return whole ? restoreMacTables(manifest.switches, this.#work.signal) : Promise.resolve([]);
  }

  /** Every VM of the time line that is given up has been ended or stopped, on all hosts: markers follow what they sent. */
  async probe(params: Omit<AgentParams<'probe'>, 'barrier'>): Promise<AgentResult<'probe'>> {
    requireState('probe', this.#state);
    return { sent: await this.#requireMarkers().probe(params, this.#work.signal) };
  }

  async listen(params: Omit<AgentParams<'listen'>, 'barrier'>): Promise<AgentResult<'listen'>> {
    requireState('listen', this.#state);
    return { missing: await this.#requireMarkers().listen(params, this.#work.signal) };
  }

  /**
   * What was under way on the time line that is given up must not reach a VM: it is waited for and dropped. Then the
   * frames of the snapshot line up.
   */
  async flush({
    alone,
    ...options
  }: Omit<AgentParams<'restoreDrain'>, 'barrier'>): Promise<AgentResult<'restoreDrain'>> {
    requireState('flush', this.#state);
    this.#markers?.stop();
    const { ports } = this.#requireGroup();
    const wish = { ...options, watched: this.#watched, signal: this.#work.signal };
    const { waitedMs, discarded } = await ports.flush(wish, alone ? this.#atRest : null);
    ports.preload(this.#frames);
    this.#state = 'stopped';
    return { waitedMs, discarded, frames: this.#frames.length };
  }

  async resume(vms: AgentParams<'resume'>['vms']): Promise<AgentResult<'resume'>> {
    requireState('resume', this.#state);
    this.#state = 'resuming';
    const instants = new Map(vms.map(({ name, atNs }) => [name, atNs]));
    // Stored frames count from the VM's stop; there is no stop on this host's present clock.
    const resumed = await this.#requireGroup().resumeAt(instants, new Map());
    await this.#writeIntent('resumed');
    this.#state = 'resumed';
    return { vms: resumed };
  }

  async settle(): Promise<AgentResult<'settle'>> {
    requireState('settle', this.#state);
    this.#allRun = true;
    const report = await this.#requireGroup().replayed();
    this.#ended ??= this.#finish(null);
    await this.#ended;
    return {
      framesReplayed: report?.preloaded ?? 0,
      replayLatenessNs: report?.latenessNs ?? null,
      external: [],
      warnings: [...this.#parts.warnings, ...this.#warnings],
    };
  }

  /** Idempotent; @returns in which condition the host is left. */
  abort(reason: string): Promise<string> {
    this.#ended ??= this.#finish(reason);
    return this.#ended;
  }

  async #finish(abortReason: string | null): Promise<string> {
    const { journal, log } = this.#parts;
    // Once all run, on all hosts, none is taken away again, whatever is missing around them.
    const endsVms = abortReason !== null && !this.#allRun;
    this.#state = 'ending';
    this.#lease.end();
    if (abortReason !== null) this.#work.abort(new StaghornError('cancelled', abortReason));
    await this.#preparing;
    await this.#group?.replayed().catch(() => undefined);
    await this.#markers?.ebb();
    await this.#group?.close();
    if (endsVms) {
      await Promise.allSettled(this.#started.map(({ launched }) => terminateVm(launched.process)));
      if (this.#touched) unplugTaps(this.#taps);
    }
    await journal.remove(this.barrier);
    await this.#collectImages(endsVms);
    this.#state = 'ended';
    const outcome = this.#outcome(endsVms);
    if (abortReason !== null) log.warn({ barrier: this.barrier, outcome }, `restore aborted: ${abortReason}`);
    return outcome;
  }

  /** What its VMs had written before they went back to the snapshot is given up with that time line. */
  async #collectImages(aborted: boolean): Promise<void> {
    const { disks, store, log, manifest } = this.#parts;
    const replaced = aborted && !this.#touched ? [] : manifest.vms.map(({ name }) => name);
    await removeUnusedImages({ disks, store, log }, { barrier: this.barrier, replaced });
  }

  #outcome(aborted: boolean): string {
    if (!aborted) return 'every VM runs and every gate is open';
    return this.#touched
      ? 'the VMs that were to be restored are stopped, and none of them runs'
      : 'the experiment is as it was before';
  }

  #giveUp(reason: string): void {
    if (this.#ended !== undefined) return;
    this.#parts.reports.lost(new StaghornError('vm-failed', reason));
    void this.abort(reason);
  }

  #writeIntent(phase: Intent['phase']): Promise<void> {
    const { params, journal, manifest, directory: part } = this.#parts;
    const { barrier, snapshot, placement } = params;
    const restores = { vms: manifest.vms.map(({ name }) => name), placement, part };
    const common = { barrier, kind: 'restore' as const, phase, snapshot, plugged: this.#taps, restores };
    const intent =
      this.#group === undefined
        ? intentWithoutGroup({ ...common, buffers: null })
        : intentOf({ ...common, group: this.#group, stops: new Map() });
    return journal.write(intent);
  }

  #requireMarkers(): MarkerExchange {
    if (this.#markers === undefined) throw new StaghornError('wrong-state', 'the VMs are not loaded');
    return this.#markers;
  }

  #requireGroup(): VmGroup {
    if (this.#group === undefined) throw new StaghornError('wrong-state', 'the VMs are not loaded');
    return this.#group;
  }
}
