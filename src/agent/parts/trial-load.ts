import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { messageOf } from '../../errors/index.ts';
import type { StoredRam, StoredVm } from '../../store/manifest.ts';
import { ramFileOf } from '../../store/ram-image.ts';
import { SnapshotStore, type StoredPart } from '../../store/snapshot-directory.ts';
import { disksOf } from '../../vmm/disks/collect.ts';
import { prepareDisks } from '../../vmm/disks/restored-disks.ts';
import { formatCommandLine, parseCommandLine } from '../../vmm/command-line.ts';
import { launchPaused, loadDeviceState, type LaunchedVm } from '../../vmm/launch.ts';
import { terminateVm } from '../../vmm/terminate.ts';
import { forTrial } from '../../vmm/trial-command-line.ts';

/** unshare(1) becomes QEMU without a fork, so the process that is started is the one that is ended. */
const inOwnNetwork = ['unshare', '--net', '--'];

/**
 * Loads each device state into a paused QEMU that has RAM mapped privately and a network of its own, and ends it.
 * The VM itself may be running meanwhile. @returns what went wrong, in words
 */
export async function findUnloadable(
  { manifest, directory }: StoredPart,
  signal: AbortSignal,
): Promise<string[]> {
  const problems: string[] = [];
  for (const vm of manifest.vms) {
    signal.throwIfAborted();
    try {
      await tryToLoad(vm, directory, signal);
    } catch (error) {
      signal.throwIfAborted();
      problems.push(messageOf(error));
    }
  }
  return problems;
}

async function tryToLoad(vm: StoredVm, directory: string, signal: AbortSignal): Promise<void> {
  const place = await mkdtemp(join(tmpdir(), 'staghorn-verify-'));
  const store = SnapshotStore.containing(directory);
  const disks = disksOf(store);
  let launched: LaunchedVm | undefined;
  let overlays: readonly string[] = [];
  try {
    const qmpSocket = join(place, 'qmp');
    const prepared = await prepareDisks(vm, disks);
    overlays = prepared.overlays;
    const imageOf = (ram: StoredRam) => ramFileOf(store, directory, ram, signal);
    const backends = vm.memory.map(async ({ id, device, ram }) => {
      return { id, device, file: await imageOf(ram), bytes: ram.bytes };
    });
    const spec = {
      ...vm,
      args: formatCommandLine(forTrial(parseCommandLine(prepared.args), { qmpSocket })),
      launcher: inOwnNetwork,
      // Only root makes a namespace; the state is the same whoever loads it.
      uid: 0,
      gid: 0,
      qmpSocket,
      ramFile: await imageOf(vm.ram),
      ramBytes: vm.ram.bytes,
      backends: await Promise.all(backends),
      logFile: join(place, 'log'),
    };
    launched = await launchPaused(spec, signal);
    await loadDeviceState(launched, spec, await readFile(join(directory, vm.state.file)));
  } finally {
    await launched?.qmp.close();
    if (launched !== undefined) await terminateVm(launched.process);
    await disks.remove(overlays);
    await rm(place, { recursive: true, force: true });
  }
}
