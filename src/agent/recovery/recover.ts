import { messageOf, StaghornError } from '../../errors/index.ts';
import { readLinks } from '../../native/netlink.ts';
import { ReceiveBuffers } from '../../network/switches/receive-buffers.ts';
import { VmPorts } from '../../network/vm-ports.ts';
import type { Logger } from '../../protocol/logger.ts';
import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import { isRestoreFrom } from '../../vmm/command-line.ts';
import { ControlledVm } from '../../vmm/controlled-vm.ts';
import { disksOf } from '../../vmm/disks/collect.ts';
import { dropIdleNodes } from '../../vmm/disks/jobs.ts';
import { isRunning } from '../../vmm/process-identity.ts';
import { findQemuProcesses, isStillRunning, readQemuProcess } from '../../vmm/qemu-process.ts';
import { terminateVm } from '../../vmm/terminate.ts';
import { edgeLeftBy } from '../session/edge-of-host.ts';
import type { Intent, IntentJournal } from '../session/intent.ts';
import { OrphanTaps, unplugTaps } from './orphan-taps.ts';
import { readStoredFrames } from '../session/stored-frames.ts';
import { removeUnusedImages } from '../parts/unused-images.ts';
import { VmGroup } from '../session/vm-group.ts';

/** For a gate that holds nothing, where none was left. */
const smallestRingBytes = 256 * 1024;

/**
 * Puts right what a dead agent left half-done: VMs that it had stopped go on, frames that it held are given back
 * in order, gates are taken off, partial snapshots are removed, VMs of an unfinished restore are ended. What could
 * not be put right stays written down, for the next agent to try again.
 * @returns in words what was done, one line for each barrier
 */
export async function recover(journal: IntentJournal, store: SnapshotStore, log: Logger): Promise<string[]> {
  const lines: string[] = [];
  for (const entry of await journal.readAll((problem) => lines.push(problem))) {
    if (await isRunning(entry.agent)) continue;
    const { outcome, problems } = await recoverOne(entry, store, journal).catch((error: unknown) => ({
      outcome: '',
      problems: [messageOf(error)],
    }));
    if (problems.length === 0) await journal.remove(entry.barrier);
    const line = problems.length === 0 ? outcome : `failed: ${problems.join('; ')}`;
    log.warn({ barrier: entry.barrier, outcome: line }, 'recovered a barrier that a dead agent had left');
    lines.push(`barrier ${entry.barrier}: ${line}`);
  }
  await removeUnusedImages({ disks: disksOf(store), store, log });
  return lines;
}

interface Recovery {
  readonly outcome: string;
  readonly problems: readonly string[];
}

async function recoverOne(entry: Intent, store: SnapshotStore, journal: IntentJournal): Promise<Recovery> {
  if (entry.kind === 'restore' && entry.phase !== 'resumed') return endUnfinishedRestore(entry, store);
  const { vms, problems } = await reopen(entry);
  const orphans = OrphanTaps.open(entry, vms);
  const ports = portsOf(entry, vms, orphans, journal.leftoversOf(entry.barrier));
  const group = new VmGroup(vms, ports, edgeLeftBy(entry), await buffersLeftBy(entry));
  try {
    const part = partOf(entry, store);
    if (part !== null) {
      const { manifest, directory } = await store.openAt(part);
      const placement = entry.restores?.placement ?? null;
      group.ports.preload(await readStoredFrames(directory, manifest, placement), beginsOf(entry));
    }
    problems.push(...(await group.thaw(entry.phase === 'armed' ? stopsOf(entry) : new Map())));
    await Promise.allSettled(vms.map(({ qmp }) => dropIdleNodes(qmp)));
  } finally {
    await group.close();
    orphans.close();
  }
  // A sealed snapshot stays: the controller knows whether it counts.
  if (entry.kind === 'stop' && entry.snapshot !== null) await store.removePartial(entry.snapshot);
  return { outcome: `${vms.length} VMs run, every gate is open`, problems };
}

/** What a restore reads; null if it is none. */
function partOf({ kind, snapshot, restores }: Intent, store: SnapshotStore): string | null {
  return kind === 'restore' && snapshot !== null ? (restores?.part ?? store.pathOf(snapshot)) : null;
}

/** Also ends what was started and not yet written down: before a restore loads, none of its VMs runs. */
async function endUnfinishedRestore(entry: Intent, store: SnapshotStore): Promise<Recovery> {
  const directory = partOf(entry, store);
  // Forks of the same snapshot run on.
  const isOurs = (name: string) => entry.restores?.vms.includes(name) ?? true;
  const started = (await findQemuProcesses()).filter(
    ({ pid, startTicks, options, name }) =>
      entry.vms.some((vm) => vm.pid === pid && vm.startTicks === startTicks) ||
      (directory !== null && isRestoreFrom(options, directory) && isOurs(name)),
  );
  for (const process of started) await terminateVm(process);
  OrphanTaps.open(entry, []).close();
  unplugTaps(entry.plugged);
  await (await buffersLeftBy(entry))?.putBack();
  return { outcome: `${started.length} VMs of an unfinished restore were ended`, problems: [] };
}

/** The VMs of an intent that still run. One that cannot be controlled does not keep the others from going on. */
async function reopen(entry: Intent): Promise<{ vms: ControlledVm[]; problems: string[] }> {
  // Open vSwitch is not asked: VMs must go on even where it is gone.
  const surroundings = { links: readLinks(), switchPorts: new Map() };
  const results = await Promise.allSettled(
    entry.vms.map(async ({ pid, startTicks, resumes }) => {
      const process = await readQemuProcess(pid);
      if (process?.startTicks !== startTicks || process === null) return null;
      try {
        return await ControlledVm.open(process, surroundings, undefined, { resumes });
      } catch (error) {
        // A VM that died has nothing to go on with.
        if (!(await isStillRunning(process))) return null;
        throw error;
      }
    }),
  );
  return {
    vms: results.flatMap((result) =>
      result.status === 'fulfilled' && result.value !== null ? [result.value] : [],
    ),
    problems: results.flatMap((result) => (result.status === 'rejected' ? [messageOf(result.reason)] : [])),
  };
}

const buffersLeftBy = async ({ buffers }: Intent) =>
  buffers === null ? null : ReceiveBuffers.adopt(buffers);

/** Every port of the dead agent's gate, as it was: what is held for a VM that is gone would keep back all the rest. */
function portsOf(
  { vms: known, gate }: Intent,
  vms: readonly ControlledVm[],
  orphans: OrphanTaps,
  leftoverFile: string,
): VmPorts {
  const fds = new Map(vms.flatMap(({ taps }) => taps.map((tap) => [tap.nic.tap, tap.fds] as const)));
  const ports = known.flatMap(({ name: vm, taps }) =>
    taps.map(({ tap: name, ifindex, slot }) => {
      return { vm, name, ifindex, slot, tapFds: fds.get(name) ?? orphans.fdsOf(name) };
    }),
  );
  try {
    if (gate !== null) return VmPorts.adopt({ ports, identity: gate, leftoverFile });
  } catch (error) {
    if (!(error instanceof StaghornError) || error.code !== 'not-found') throw error;
  }
  // A gate lives as long as it is on any port: it was not on one yet, or not any more.
  return VmPorts.create({ ports: [], ringBytes: smallestRingBytes, hold: false });
}

function beginsOf({ vms }: Intent): Map<string, number> {
  return new Map(
    vms.flatMap(({ taps }) => taps.map(({ tap, preloadedFrom }) => [tap, preloadedFrom] as const)),
  );
}

function stopsOf({ vms }: Intent): Map<string, bigint> {
  return new Map(
    vms.flatMap(({ name, stoppedAtNs }) => (stoppedAtNs === null ? [] : [[name, stoppedAtNs] as const])),
  );
}
