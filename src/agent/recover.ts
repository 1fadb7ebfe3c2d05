import { messageOf } from '../errors/index.ts';
import { VmPorts } from '../network/vm-ports.ts';
import type { Logger } from '../protocol/logger.ts';
import type { SnapshotStore } from '../store/snapshot-directory.ts';
import { ControlledVm } from '../vmm/controlled-vm.ts';
import { readQemuProcess } from '../vmm/qemu-process.ts';
import { terminateVm } from '../vmm/terminate.ts';
import { readSurroundings } from './host-inventory.ts';
import type { Intent, IntentJournal } from './intent.ts';
import { readStoredFrames } from './stored-frames.ts';
import { VmGroup } from './vm-group.ts';

/**
 * Puts right what a dead agent left half-done: VMs that it had stopped go on, frames that it held are given back
 * in order, gates are taken off, partial snapshots are removed, VMs of an unfinished restore are ended.
 * @returns in words what was done, one line for each barrier
 */
export async function recover(journal: IntentJournal, store: SnapshotStore, log: Logger): Promise<string[]> {
  const lines: string[] = [];
  for (const entry of await journal.readAll()) {
    if (isAlive(entry.agentPid)) continue;
    try {
      const outcome = await recoverOne(entry, store);
      await journal.remove(entry.barrier);
      lines.push(`barrier ${entry.barrier}: ${outcome}`);
      log.warn({ barrier: entry.barrier, outcome }, 'recovered a barrier that a dead agent had left');
    } catch (error) {
      // The intent stays: whoever comes next tries again.
      lines.push(`barrier ${entry.barrier}: not recovered: ${messageOf(error)}`);
      log.error(
        { barrier: entry.barrier, err: error },
        'a barrier that a dead agent had left was not recovered',
      );
    }
  }
  return lines;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function recoverOne(entry: Intent, store: SnapshotStore): Promise<string> {
  if (entry.kind === 'restore' && entry.phase !== 'resumed') return endUnfinishedRestore(entry);
  const group = await reopen(entry);
  if (entry.kind === 'restore' && entry.snapshot !== null) {
    const manifest = await store.readManifest(entry.snapshot, null);
    group.ports.preload(await readStoredFrames(store.pathOf(entry.snapshot), manifest));
  }
  const problems = await group.thaw(entry.phase === 'armed' ? stopsOf(entry) : new Map());
  await group.close();
  // A sealed snapshot stays: the controller knows whether it counts.
  if (entry.kind === 'stop' && entry.snapshot !== null) await store.removePartial(entry.snapshot);
  return problems.length === 0 ? `${group.vms.length} VMs run, every gate is open` : problems.join('; ');
}

async function endUnfinishedRestore(entry: Intent): Promise<string> {
  for (const { pid, startTicks } of entry.vms) {
    const process = await readQemuProcess(pid);
    if (process?.startTicks === startTicks) await terminateVm(process);
  }
  return `${entry.vms.length} VMs of an unfinished restore were ended`;
}

async function reopen(entry: Intent): Promise<VmGroup> {
  const surroundings = await readSurroundings();
  const vms: ControlledVm[] = [];
  for (const { pid, startTicks, resumes } of entry.vms) {
    const process = await readQemuProcess(pid);
    // A VM that died has nothing to go on with.
    if (process?.startTicks !== startTicks || process === null) continue;
    vms.push(await ControlledVm.open(process, surroundings, undefined, { resumes }));
  }
  const slots = new Map(entry.vms.flatMap(({ taps }) => taps.map(({ tap, slot }) => [tap, slot] as const)));
  const ports = VmGroup.portsOf(vms).flatMap((port) => {
    const slot = slots.get(port.name);
    return slot === undefined ? [] : [{ ...port, slot }];
  });
  return new VmGroup(vms, VmPorts.adopt({ ports, identity: entry.gate }));
}

function stopsOf({ vms }: Intent): Map<string, bigint> {
  return new Map(
    vms.flatMap(({ name, stoppedAtNs }) => (stoppedAtNs === null ? [] : [[name, stoppedAtNs] as const])),
  );
}
