import { StaghornError } from '../errors/index.ts';
import type { AgentParams } from '../protocol/rpc.ts';
import type { SnapshotStore } from '../store/snapshot-directory.ts';
import { findQemuProcesses } from '../vmm/qemu-process.ts';
import type { AgentDirectories } from './agent-directories.ts';
import { takePlace } from './fork/fork-check.ts';
import { readSurroundings, switchedDevices } from './host-inventory.ts';
import { findObstacles, requireIntactRam } from './restore-check.ts';
import { RestoreSession } from './restore-session.ts';
import type { ArmTools } from './arm.ts';

/**
 * Begins a restore: everything is checked, nothing is touched.
 * @throws StaghornError 'snapshot-damaged', 'snapshot-unfit', 'not-found', or 'conflict' if VMs of the snapshot
 *   run and are not to be replaced
 */
export async function checkRestore(
  params: AgentParams<'restoreCheck'>,
  tools: ArmTools & { readonly directories: AgentDirectories },
  signal: AbortSignal,
): Promise<RestoreSession> {
  const store: SnapshotStore = tools.store;
  const stored = await store.readManifest(params.snapshot, params.manifestSha256);
  const { placement } = params;
  const manifest =
    placement === null
      ? stored
      : await takePlace(stored, placement, { directories: tools.directories, signal });
  const directory = store.pathOf(params.snapshot);
  // Where VMs are to be replaced, none is touched on any host before RAM is known to be whole on all. Where none
  // runs there is nothing to lose, and VMs are loaded meanwhile.
  const verified = params.verify ? requireIntactRam(manifest, directory, signal) : Promise.resolve();
  verified.catch(() => undefined);
  const { damage, misfits } = await findObstacles(manifest, directory, signal);
  if (damage.length > 0)
    throw new StaghornError('snapshot-damaged', damage.join('; '), { context: { problems: damage } });
  if (misfits.length > 0)
    throw new StaghornError('snapshot-unfit', misfits.join('; '), { context: { problems: misfits } });
  const sockets = new Set(manifest.vms.map(({ qmpSocket }) => qmpSocket));
  const names = new Set(manifest.vms.map(({ name }) => name));
  const running = (await findQemuProcesses()).filter(
    (process) => names.has(process.name) || process.qmpSockets.some((path) => sockets.has(path)),
  );
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
    runDirectory: tools.directories.run,
    switchedDevices: switchedDevices(await readSurroundings(signal)),
    ...tools,
  });
}
