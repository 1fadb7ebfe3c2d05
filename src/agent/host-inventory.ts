import { StaghornError } from '../errors/index.ts';
import { readLinks } from '../native/netlink.ts';
import { asking, switchPortsOf, withSwitches } from '../network/switches/ports.ts';
import { underlayDevices } from '../network/switches/underlay.ts';
import { readSwitches, type OvsdbClient } from '../ovsdb/index.ts';
import type { ExperimentPort } from '../protocol/resources.ts';
import type { Vm } from '../protocol/vm.ts';
import { inspectVm, type HostSurroundings } from '../vmm/inspect.ts';
import { isVmOfFork } from './fork/names.ts';
import { findQemuProcesses, type QemuProcess } from '../vmm/qemu-process.ts';

/** What is around the VMs of a host. */
export interface HostNetwork extends HostSurroundings {
  /** By ifindex: what tunnels of the switches leave by. */
  readonly underlay: readonly number[];
}

export function readSurroundings(signal?: AbortSignal): Promise<HostNetwork> {
  return withSwitches(undefined, signal, (database) => surroundingsIn(database, signal));
}

/** The same over a connection to the switches' database that is there already. */
export async function surroundingsIn(database: OvsdbClient, signal?: AbortSignal): Promise<HostNetwork> {
  const bridges = await asking(signal, () => readSwitches(database, { signal }));
  const links = readLinks();
  return { links, switchPorts: switchPortsOf(bridges), underlay: underlayDevices(bridges, links) };
}

/** Everything that is plugged into a switch of this host, or below its tunnels: frames on their way may wait there. */
export function switchedDevices({ links, switchPorts, underlay }: HostNetwork): number[] {
  const plugged = links.flatMap(({ name, ifindex }) => (switchPorts.has(name) ? [ifindex] : []));
  return [...new Set([...plugged, ...underlay])];
}

/**
 * The QEMU processes of the named VMs, or of all.
 * @throws StaghornError 'not-found' naming those that are missing; 'vm-unfit' if a name stands for two VMs.
 */
export async function selectProcesses(names: readonly string[] | null): Promise<QemuProcess[]> {
  const found = await findQemuProcesses();
  // Forks are experiments of their own: they belong to nobody who does not name them.
  const selected =
    names === null ? found.filter((vm) => !isVmOfFork(vm)) : found.filter(({ name }) => names.includes(name));
  const missing = (names ?? []).filter((name) => !selected.some((process) => process.name === name));
  if (missing.length > 0) {
    const present = found.map(({ name }) => name).join(', ') || 'none';
    throw new StaghornError(
      'not-found',
      `no running QEMU is named ${missing.join(', ')} (running here: ${present})`,
    );
  }
  const twice = selected.find(
    (process, index) => selected.findIndex(({ name }) => name === process.name) !== index,
  );
  if (twice !== undefined) {
    throw new StaghornError('vm-unfit', `two running QEMUs are named ${twice.name}; give each its own -name`);
  }
  return selected;
}

/** @throws StaghornError 'not-found', 'host-unfit' */
export async function discoverVms(names: readonly string[] | null, signal?: AbortSignal): Promise<Vm[]> {
  const [processes, surroundings] = await Promise.all([selectProcesses(names), readSurroundings(signal)]);
  return Promise.all(processes.map((process) => inspectVm(process, surroundings, signal)));
}

export async function discoverPorts(
  names: readonly string[] | null,
  signal?: AbortSignal,
): Promise<Omit<ExperimentPort, 'host'>[]> {
  const vms = await discoverVms(names, signal);
  return vms.flatMap((vm) =>
    vm.nics.map(({ tap, mac, model, mtu, switchPort }) => ({
      vm: vm.name,
      tap,
      mac,
      model,
      mtu,
      switchPort,
    })),
  );
}
