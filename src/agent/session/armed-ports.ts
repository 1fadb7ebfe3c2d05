import type { MarkerPort } from '../../network/markers/paths.ts';
import { addresseesBySegment } from '../../protocol/marker-addressees.ts';
import type { ArmedPort } from '../../protocol/rpc.ts';
import type { ControlledVm } from '../../vmm/controlled-vm.ts';

/** The ports of VMs by which the other hosts may reach this one: not all, since more of them would not be used. */
export function armedPorts(vms: readonly ControlledVm[]): ArmedPort[] {
  const all = vms.flatMap(({ name, taps }) =>
    taps.map(({ nic: { tap, mac, switchPort } }) => ({
      vm: name,
      tap,
      mac,
      bridge: switchPort?.bridge ?? null,
      vlan: switchPort?.tag ?? null,
    })),
  );
  return [...addresseesBySegment(all).values()].flat();
}

/** All ports, as senders of markers. */
export function markerPorts(vms: readonly ControlledVm[]): MarkerPort[] {
  return vms.flatMap(({ taps }) =>
    taps.map(({ nic: { tap, mac, switchPort } }) => ({ tap, mac, switchPort })),
  );
}
