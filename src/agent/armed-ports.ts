import type { MarkerPort } from '../network/markers/paths.ts';
import type { ArmedPort } from '../protocol/rpc.ts';
import type { ControlledVm } from '../vmm/controlled-vm.ts';

/** The ports of VMs as the other hosts may reach them. */
export function armedPorts(vms: readonly ControlledVm[]): ArmedPort[] {
  return vms.flatMap(({ name, taps }) =>
    taps.map(({ nic: { tap, mac, switchPort } }) => ({
      vm: name,
      tap,
      mac,
      bridge: switchPort?.bridge ?? null,
      vlan: switchPort?.tag ?? null,
    })),
  );
}

/** The same ports as senders of markers. */
export function markerPorts(vms: readonly ControlledVm[]): MarkerPort[] {
  return vms.flatMap(({ taps }) =>
    taps.map(({ nic: { tap, mac, switchPort } }) => ({ tap, mac, switchPort })),
  );
}
