import { StaghornError } from '../../errors/index.ts';
import type { AgentParams } from '../../protocol/rpc.ts';
import type { HostManifest } from '../../store/manifest.ts';
import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import type { QemuProbes } from '../../vmm/qemu-probe.ts';
import { findQemuProcesses, type QemuProcess } from '../../vmm/qemu-process.ts';
import type { AgentDirectories } from '../agent-directories.ts';
import type { ArmTools } from '../snapshot/arm.ts';
import { takePlace } from '../fork/fork-check.ts';
import { readSurroundings } from '../host-inventory.ts';
import { findObstacles, requireIntactRam } from './restore-check.ts';
import { selectPart } from './restore-selection.ts';
import { RestoreSession } from './restore-session.ts';
import type { KeptBetweenRestores } from './restored-vms.ts';

export interface RestoreTools extends Omit<ArmTools, 'kept'> {
  readonly directories: AgentDirectories;
  readonly probes: QemuProbes;
  readonly kept: KeptBetweenRestores;
}

/**
 * Begins a restore: everything is checked, nothing is touched.
 * @throws StaghornError 'snapshot-damaged', 'snapshot-unfit', 'not-found', or 'conflict' if VMs of the snapshot
 *   run and are not to be replaced
 */
export async function checkRestore(
  params: AgentParams<'restoreCheck'>,
  tools: RestoreTools,
  signal: AbortSignal,
): Promise<RestoreSession> {
  const store: SnapshotStore = tools.store;
  const part = await store.open(params.snapshot, params.manifestSha256);
  const { directory } = part;
  const selected = selectPart(part.manifest, params);
  const { whole, warnings } = selected;
  const { placement } = params;
  const manifest =
    placement === null
      ? selected.manifest
      : await takePlace(selected.manifest, placement, { directories: tools.directories, signal });
  // Where VMs are to be replaced, none is touched on any host before RAM is known to be whole on all. Where none
  // runs there is nothing to lose, and VMs are loaded meanwhile.
  const verified = params.verify
    ? requireIntactRam(manifest, directory, tools.kept.intact, signal)
    : Promise.resolve();
  verified.catch(() => undefined);
  const around = readSurroundings(signal);
  around.catch(() => undefined);
  const running = await findRunning(manifest);
  const obstacles = await findObstacles({
    ...{ manifest, directory, surroundings: around, signal },
    ...{ makesBridges: !params.moved, doomed: running, probes: tools.probes },
  });
  const { damage, misfits } = obstacles;
  if (damage.length > 0)
    throw new StaghornError('snapshot-damaged', damage.join('; '), { context: { problems: damage } });
  if (misfits.length > 0)
    throw new StaghornError('snapshot-unfit', misfits.join('; '), { context: { problems: misfits } });
  if (running.length > 0 && !params.replace) {
    throw new StaghornError(
      'conflict',
      `${running.map(({ name }) => name).join(', ')} still run; say that they are to be replaced ("replace": true, --force)`,
    );
  }
  if (params.replace) await verified;
  return new RestoreSession({
    params,
    manifest,
    directory,
    running,
    verified,
    whole,
    warnings: [...warnings, ...obstacles.warnings],
    runDirectory: tools.directories.run,
    surroundings: await around,
    ...tools,
  });
}

/** VMs that have a name or a QMP socket of the snapshot's. */
async function findRunning({ vms }: HostManifest): Promise<QemuProcess[]> {
  const sockets = new Set(vms.map(({ qmpSocket }) => qmpSocket));
  const names = new Set(vms.map(({ name }) => name));
  return (await findQemuProcesses()).filter(
    (process) => names.has(process.name) || process.qmpSockets.some((path) => sockets.has(path)),
  );
}
