import { join } from 'node:path';

import { StaghornError } from '../../errors/index.ts';
import { forkVmName, type Placement } from '../../protocol/fork.ts';
import type { Nic } from '../../protocol/vm.ts';
import type { HostManifest, StoredVm } from '../../store/manifest.ts';
import { formatCommandLine, parseCommandLine, vmName } from '../../vmm/command-line.ts';
import { placedDevice } from './names.ts';
import { OwnPlaces } from './own-places.ts';
import { placeCommandLine } from './place-command-line.ts';
import { placeSwitches } from './place-switches.ts';

export interface PlacedManifest {
  readonly manifest: HostManifest;
  /** What a fork is not joined to, in words. */
  readonly warnings: readonly string[];
}

/**
 * The manifest of a fork: restoring it brings a copy of the snapshot up beside whatever runs. RAM, device states and
 * frames are read from the snapshot's own files.
 * @param directory of the fork on this host
 * @throws StaghornError 'snapshot-unfit' with everything that a copy cannot have beside its original
 */
export function placeManifest(
  manifest: HostManifest,
  placement: Placement,
  directory: string,
): PlacedManifest {
  const vms = manifest.vms.map((vm) => placeVm(vm, placement, directory));
  const taps = new Set(manifest.vms.flatMap(({ nics }) => nics.map(({ tap }) => tap)));
  const network = manifest.switches === null ? null : placeSwitches(manifest.switches, taps, placement);
  const placed: HostManifest = {
    ...manifest,
    vms: vms.map(({ vm }) => vm),
    switches: network?.switches ?? null,
  };
  const problems = [
    ...vms.flatMap(({ obstacles }) => obstacles),
    ...(network?.obstacles ?? undescribedBridges(manifest)),
    ...sharedNames(manifest, placement.fork),
  ];
  if (problems.length > 0)
    throw new StaghornError('snapshot-unfit', `no fork is possible: ${problems.join('; ')}`, {
      context: { problems },
    });
  return { manifest: placed, warnings: [...(network?.warnings ?? []), ...unpluggedTaps(manifest)] };
}

/** Where a VM of a fork has its files. */
export function vmDirectory(directory: string, vm: string): string {
  // Part of the path of a Unix socket, which must be short.
  return join(
    directory,
    /^[\w.-]{1,36}$/.test(vm) ? vm : `vm-${Buffer.from(vm).toString('hex').slice(0, 32)}`,
  );
}

function placeVm(vm: StoredVm, { fork }: Placement, directory: string) {
  const files = new OwnPlaces(vmDirectory(directory, vm.name));
  const qmpSocket = files.placeOf(vm.qmpSocket) ?? vm.qmpSocket;
  const taps = new Map(vm.nics.map(({ netdev, tap }) => [netdev, placedDevice(tap, fork)]));
  const { options, obstacles } = placeCommandLine(parseCommandLine(vm.args), { fork, files, taps });
  const name = forkVmName(vm.name, fork);
  // A VM without a name of its own was called by its process.
  const naming = vmName(options) === name ? [] : [{ name: 'name', value: `guest=${name}` }];
  const placed: StoredVm = {
    ...vm,
    name,
    args: formatCommandLine([...options, ...naming]),
    qmpSocket,
    nics: vm.nics.map((nic) => placeNic(nic, fork)),
  };
  return { vm: placed, obstacles: obstacles.map((obstacle) => `VM ${vm.name}: ${obstacle}`) };
}

function placeNic(nic: Nic, fork: number): Nic {
  const { tap, switchPort } = nic;
  return {
    ...nic,
    tap: placedDevice(tap, fork),
    switchPort: switchPort && {
      ...switchPort,
      bridge: placedDevice(switchPort.bridge, fork),
      port: placedDevice(switchPort.port, fork),
    },
  };
}

function undescribedBridges({ vms }: HostManifest): string[] {
  const bridges = vms.flatMap(({ nics }) => nics.flatMap(({ switchPort }) => switchPort?.bridge ?? []));
  return [...new Set(bridges)].map((name) => `the snapshot says nothing of how bridge ${name} was set`);
}

const unpluggedTaps = ({ vms }: HostManifest) =>
  vms.flatMap(({ nics }) =>
    nics.flatMap(({ tap, switchPort }) =>
      switchPort === null ? [`tap ${tap} was in no bridge of Open vSwitch; in a fork it leads nowhere`] : [],
    ),
  );

/** Shortened names could meet. */
function sharedNames({ vms, switches }: HostManifest, fork: number): string[] {
  const devices = new Set([
    ...vms.flatMap(({ nics }) => nics.map(({ tap }) => tap)),
    ...(switches?.bridges ?? []).flatMap(({ name, ports }) => [
      name,
      ...ports.flatMap((port) => port.interfaces.map((one) => one.name)),
    ]),
  ]);
  const placed = [...devices].map((name) => placedDevice(name, fork));
  const twice = placed.filter((name, place) => placed.indexOf(name) !== place);
  return twice.map((name) => `two devices would be named ${name}`);
}
