import { availableParallelism } from 'node:os';

import { messageOf, StaghornError } from '../../errors/index.ts';
import { runCut, runResume } from '../../native/barrier.ts';
import { monotonicNs } from '../../native/clock.ts';
import { hurryEventLoop } from '../../native/scheduling.ts';
import type { EdgePorts } from '../../network/edge-ports.ts';
import type { ReceiveBuffers } from '../../network/switches/receive-buffers.ts';
import type { VmPort } from '../../network/vm-port.ts';
import type { ReplaySummary, UnreadFrames, VmPorts } from '../../network/vm-ports.ts';
import type { CutReport, VmResume } from '../../protocol/rpc.ts';
import type { ControlledVm, RunStateChange, Treatment } from '../../vmm/controlled-vm.ts';
import { gentle, treatmentOf, type Demand } from './treatment.ts';

/** How long before an instant the barrier thread stops sleeping and begins to spin. */
const spinNs = 150_000;
/**
 * How long running VMs get to read their tap rings empty before they are read for them. Time enough for a guest that is
 * slow to give its NIC buffers: QEMU drops the frame that waits for one when it stops (docs/fidelity.md).
 */
const ringBoundNs = 20_000_000;

/** For how long QEMUs' words are left unread: to read them takes the processor from those that are not through yet. */
const answerBoundNs = 20_000_000;

/** What came in from outside during a long pause is not let in for as long again: after this long it hurries. */
const edgeBoundMs = 10_000;

/** When each VM of the group had stopped, by name (CLOCK_MONOTONIC). */
export type StopInstants = ReadonlyMap<string, bigint>;

/**
 * The VMs of one barrier on this host and the gate on their ports: stops them and lets them go on.
 * Invariant: while any of them is stopped by us, the gate holds every frame to all of them.
 */
export class VmGroup {
  readonly vms: readonly ControlledVm[];
  readonly ports: VmPorts;
  /** Where frames from outside wait; null: nowhere. */
  readonly edge: EdgePorts | null;
  /** Of the switch; null: they stay as they are. */
  readonly buffers: ReceiveBuffers | null;
  readonly #hurry = new AbortController();
  #release: Promise<string[]> | undefined;
  #replay: Promise<ReplaySummary> | undefined;
  #warnings: string[] = [];
  readonly #demandBefore: Demand;
  #treatment: Treatment = gentle;
  /** Ends the hurry of the event loop; time stands still meanwhile. */
  #calmDown: () => void = () => undefined;

  constructor(
    vms: readonly ControlledVm[],
    ports: VmPorts,
    edge: EdgePorts | null = null,
    buffers: ReceiveBuffers | null = null,
  ) {
    this.vms = vms;
    this.ports = ports;
    this.edge = edge;
    this.buffers = buffers;
    this.#demandBefore = this.#demand();
  }

  /** The ports of all VMs, in order. */
  static portsOf(vms: readonly ControlledVm[]): VmPort[] {
    return vms.flatMap(({ name, process: { pid }, taps }) =>
      taps.map(({ nic: { tap, ifindex, vhost }, fds, qemuFds }) => {
        return { vm: name, name: tap, ifindex, tapFds: fds, qemuFds, pid, vhost };
      }),
    );
  }

  /** Puts the gate on every port, or on none. @throws StaghornError 'network-unfit' */
  attach(): void {
    this.ports.attach();
    this.edge?.attach();
  }

  /** What a cut found that a snapshot may lack, in words, and what the network has lost meanwhile by itself. */
  get warnings(): readonly string[] {
    const dropped = this.buffers?.dropped ?? 0;
    return dropped === 0 ? this.#warnings : [...this.#warnings, droppedWarning(dropped)];
  }

  /**
   * Closes the gate at the instant and stops every VM. `onStopped` is told of each as soon as it stands still, also
   * if another does not.
   * @throws StaghornError 'vm-failed' if one did not stop; the others have.
   */
  async stopAt(
    atNs: bigint,
    signal: AbortSignal,
    onStopped: (vm: string, stoppedAtNs: bigint) => void,
  ): Promise<CutReport> {
    const running = this.vms.filter(({ resumes }) => resumes);
    const gone = running.find(({ qmp }) => qmp.isClosed);
    if (gone !== undefined) throw disconnected(gone);
    this.#calmDown = hurryEventLoop();
    this.#treatment = treatmentOf(this.#demandBefore, this.#demand(), availableParallelism());
    const changes = running.map((vm) => ({ vm, change: vm.prepareStop(this.#treatment) }));
    const happened = changes.map(async ({ vm, change }) => {
      const stoppedAtNs = await change.happened;
      onStopped(vm.name, stoppedAtNs);
      return { name: vm.name, stoppedAtNs };
    });
    const stopped = Promise.allSettled(happened);
    const cut = {
      ...{ atNs, spinNs, ringBoundNs, signal },
      modeWords: [this.ports.modeWord, ...(this.edge === null ? [] : [this.edge.modeWord])],
      ...this.ports.cutRings(),
      writes: changes.map(({ vm, change }) => ({ fd: vm.qmp.fd, ...change })),
    };
    const times = await leavingAlone(changes, (answerBoundNs) => runCut({ ...cut, answerBoundNs }));
    const vms = collect(await stopped);
    const unread = this.ports.takeLeftovers(times);
    this.#warnings = unread.map(unreadWarning);
    // Their owner had stopped them: frames for them count from the cut.
    for (const { name, resumes } of this.vms) if (!resumes) onStopped(name, times.flippedNs);
    return {
      wakeLatenessNs: Number(times.wokeNs - atNs),
      gateClosedAtNs: times.flippedNs,
      realtime: times.realtime,
      framesFromRings: unread.reduce((sum, { kept }) => sum + kept, 0),
      vms,
    };
  }

  /**
   * Lets each VM go on at its instant and begins to give back what the gate holds, each frame as long after the
   * VM's resumption as it came after the VM's stop. VMs that were paused before stay so.
   * @throws StaghornError 'vm-failed' naming those that did not resume; the others have.
   */
  async resumeAt(
    instants: ReadonlyMap<string, bigint>,
    stops: StopInstants,
    timeoutMs?: number,
  ): Promise<VmResume[]> {
    const all = this.vms.filter(({ resumes }) => resumes);
    const waking = all.filter(({ qmp }) => !qmp.isClosed);
    const gone = all.filter((vm) => !waking.includes(vm)).map((vm) => Promise.reject(disconnected(vm)));
    const changes = waking.map((vm) => ({
      vm,
      change: vm.prepareResume(this.#treatment, timeoutMs),
      atNs: instants.get(vm.name) ?? monotonicNs(),
    }));
    const happened = Promise.allSettled([
      ...gone,
      ...changes.map(async ({ vm, change }) => ({ name: vm.name, resumedAtNs: await change.happened })),
    ]);
    const firstNs = changes.reduce(
      (first, { atNs }) => (atNs < first ? atNs : first),
      changes[0]?.atNs ?? monotonicNs(),
    );
    // Begun once: an abort in the middle of a resumption lets VMs go on, and what is being given back goes on.
    this.#replay ??= this.ports.replay(
      firstNs,
      new Map(
        this.vms.map(({ name }) => [name, resumeOf(instants.get(name) ?? firstNs, stops.get(name) ?? null)]),
      ),
    );
    this.#replay.catch(() => undefined);
    this.#release ??= this.#releaseEdge(firstNs, stops);
    const writes = changes.map(({ vm, change, atNs }) => ({ fd: vm.qmp.fd, ...change, atNs }));
    await leavingAlone(changes, (answerBoundNs) => runResume({ writes, spinNs, answerBoundNs }));
    const resumed = await happened;
    this.#calmDown();
    return collect(resumed);
  }

  /** Resolves when every held frame is back; at once if nothing was resumed. */
  async replayed(): Promise<ReplaySummary | null> {
    return (await this.#replay) ?? null;
  }

  /** Resolves when the edge is open and nothing waits there; @returns in words what could not be let in. */
  async released(): Promise<string[]> {
    return (await this.#release) ?? [];
  }

  /** What is held is given back at once, in order, and not at its own time: its room is needed. */
  hurry(): void {
    this.ports.hurry();
    this.#hurry.abort();
  }

  /** Frames from outside shift with the VM that stopped first. */
  async #releaseEdge(liveFromNs: bigint, stops: StopInstants): Promise<string[]> {
    const first = firstOf(stops);
    const shiftNs = first === null ? 0n : liveFromNs - first;
    try {
      return (
        (await this.edge?.release(
          { liveFromNs, shiftNs },
          AbortSignal.any([this.#hurry.signal, AbortSignal.timeout(edgeBoundMs)]),
        )) ?? []
      );
    } catch (error) {
      return [messageOf(error)];
    }
  }

  /**
   * Everything goes on now, whatever state it is in: the way out of an abort, a lost lease, a crash. VMs that
   * stopped at known instants are all stopped for the same time. A QEMU that hangs is waited for, with its
   * connection open: otherwise it would carry out our `stop` one day, and nobody's `cont`. The others do not wait.
   * @returns in words what could not be put right
   */
  async thaw(stops: StopInstants): Promise<string[]> {
    const problems: string[] = [];
    const first = firstOf(stops);
    const pauseNs = first === null ? 0n : monotonicNs() + thawMarginNs - first;
    const instants = new Map([...stops].map(([name, stoppedAtNs]) => [name, stoppedAtNs + pauseNs]));
    await this.resumeAt(instants, stops, thawTimeoutMs).catch((error: unknown) =>
      problems.push(messageOf(error)),
    );
    await this.replayed().catch((error: unknown) => problems.push(messageOf(error)));
    problems.push(...(await this.released()));
    return problems;
  }

  #demand(): Demand {
    const wantedNs = this.vms.reduce((sum, vm) => sum + vm.wantedNs(), 0n);
    return { atNs: monotonicNs(), wantedNs };
  }

  /** Takes the gate off the ports, leaves the switch as it was, and lets go of the VMs. */
  async close(): Promise<void> {
    this.#calmDown();
    this.ports.close();
    this.edge?.close();
    await this.buffers?.putBack();
    await Promise.allSettled(this.vms.map((vm) => vm.close()));
  }
}

/** Does the job while nobody else has the QMP connections. */
async function leavingAlone<T>(
  changes: readonly { change: RunStateChange }[],
  job: (answerBoundNs: number) => Promise<T>,
): Promise<T> {
  const readers = changes.flatMap(({ change: { leaveAlone } }) => leaveAlone?.() ?? []);
  try {
    return await job(readers.length === 0 ? 0 : answerBoundNs);
  } finally {
    for (const readAgain of readers) readAgain();
  }
}

const thawMarginNs = 1_000_000n;
const thawTimeoutMs = 10 * 60_000;

function disconnected({ name }: ControlledVm): StaghornError {
  return new StaghornError('vm-failed', `VM ${name} ended or closed its QMP connection`, {
    context: { vm: name },
  });
}

const droppedWarning = (count: number) =>
  `Open vSwitch got too little processor time, and dropped ${count} frames on their way into it: its sockets were full`;

function unreadWarning({ port: { vm, name }, kept, dropped }: UnreadFrames): string {
  if (dropped)
    return `VM ${vm} had no buffer for a frame that QEMU had read from tap ${name}, and QEMU dropped it when it stopped`;
  return `VM ${vm} left ${kept} frames unread in tap ${name}: they are kept, but it reads too slowly to be sure of the last one that it read`;
}

function firstOf(stops: StopInstants): bigint | null {
  return [...stops.values()].reduce<bigint | null>((a, b) => (a === null || b < a ? b : a), null);
}

function resumeOf(atNs: bigint, stoppedAtNs: bigint | null) {
  return { atNs, shiftNs: stoppedAtNs === null ? 0n : atNs - stoppedAtNs };
}

function collect<T>(results: readonly PromiseSettledResult<T>[]): T[] {
  const failures = results.flatMap((result) =>
    result.status === 'rejected' ? [messageOf(result.reason)] : [],
  );
  if (failures.length > 0) {
    throw new StaghornError('vm-failed', failures.join('; '), { context: { problems: failures } });
  }
  return results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
}
