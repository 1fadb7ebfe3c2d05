import { StaghornError } from '../../errors/index.ts';
import { readLinks } from '../../native/netlink.ts';
import { readBridges } from '../../network/switches/config.ts';
import type { AgentParams, AgentResult } from '../../protocol/rpc.ts';
import type { Placement } from '../../protocol/fork.ts';
import type { HostManifest } from '../../store/manifest.ts';
import type { SnapshotStore } from '../../store/snapshot-directory.ts';
import { findQemuProcesses } from '../../vmm/qemu-process.ts';
import type { AgentDirectories } from '../agent-directories.ts';
import { forkDirectory, listForks, makeForkDirectory } from './fork-directory.ts';
import { forkOfName } from './names.ts';
import { placeManifest } from './place-manifest.ts';
import { keysInUse } from './tunnel-keys.ts';

/** Any will do to see what stands in the way of a fork. */
const anyFork = 1;

/**
 * What the controller must know to place forks of a snapshot. Nothing is touched.
 * @throws StaghornError 'snapshot-unfit' if no fork is possible
 */
export async function checkFork(
  { snapshot, manifestSha256 }: AgentParams<'forkCheck'>,
  { store, directories }: { store: SnapshotStore; directories: AgentDirectories },
  signal: AbortSignal,
): Promise<AgentResult<'forkCheck'>> {
  const { manifest } = await store.open(snapshot, manifestSha256);
  const tunnelKeys = keysInUse(manifest.switches?.bridges ?? []);
  const placement = { fork: anyFork, tunnelKeys: Object.fromEntries(tunnelKeys.map((key) => [key, key])) };
  const { warnings } = placeManifest(manifest, placement, forkDirectory(directories, anyFork));
  const [bridges, directoryForks, vms] = await Promise.all([
    readBridges(signal),
    listForks(directories),
    findQemuProcesses(),
  ]);
  const names = [...readLinks(), ...bridges, ...vms].map(({ name }) => name);
  return {
    forks: [...new Set([...directoryForks, ...names.flatMap((name) => forkOfName(name) ?? [])])],
    tunnelKeys,
    usedKeys: keysInUse(bridges),
    warnings: [...warnings],
  };
}

/**
 * The manifest of a fork, whose number this host gives to it from now on.
 * @throws StaghornError 'snapshot-unfit'; 'conflict' if something of that name or key is there
 */
export async function takePlace(
  stored: HostManifest,
  placement: Placement,
  { directories, signal }: { directories: AgentDirectories; signal: AbortSignal },
): Promise<HostManifest> {
  const directory = forkDirectory(directories, placement.fork);
  const { manifest } = placeManifest(stored, placement, directory);
  await requireFree(manifest, placement, signal);
  await makeForkDirectory(directory, manifest);
  return manifest;
}

/** What a fork found under its names it would share: a restore leaves what is there as it is. */
async function requireFree(manifest: HostManifest, placement: Placement, signal: AbortSignal): Promise<void> {
  const bridges = await readBridges(signal);
  const ports = bridges.flatMap((bridge) => [bridge.name, ...bridge.ports.map(({ name }) => name)]);
  const present = new Set([...ports, ...readLinks().map(({ name }) => name)]);
  const wanted = [
    ...manifest.vms.flatMap(({ nics }) => nics.map(({ tap }) => tap)),
    ...(manifest.switches?.bridges ?? []).flatMap(({ name, ports }) => [
      name,
      ...ports.map((port) => port.name),
    ]),
  ];
  const used = keysInUse(bridges);
  const taken = [
    ...new Set(wanted.filter((name) => present.has(name))),
    ...Object.values(placement.tunnelKeys)
      .filter((key) => used.includes(key))
      .map((key) => `tunnel key ${key}`),
  ];
  if (taken.length > 0)
    throw new StaghornError('conflict', `fork ${placement.fork} would meet ${taken.join(', ')}`);
}
