import { describeEdge } from './edge-of-host.ts';
import type { Intent } from './intent.ts';
import { thisProcess } from '../../vmm/process-identity.ts';
import type { StopInstants, VmGroup } from './vm-group.ts';

export interface IntentParts {
  readonly barrier: string;
  readonly kind: Intent['kind'];
  readonly phase: Intent['phase'];
  readonly snapshot: string | null;
  readonly group: VmGroup;
  readonly stops: StopInstants;
  readonly plugged?: readonly string[];
  readonly restores?: Intent['restores'];
}

/** What is to be written down before there is a group: nothing that runs has been touched but the switch's sockets. */
export function intentWithoutGroup({
  buffers,
  plugged = [],
  restores = null,
  ...rest
}: Omit<IntentParts, 'group' | 'stops'> & Pick<Intent, 'buffers'>): Intent {
  const nothing = { vms: [], gate: null, edge: null };
  return { ...rest, ...nothing, agent: thisProcess(), plugged: [...plugged], restores, buffers };
}

/** What is to be written down of a group of VMs so that another process can put the host right. */
export function intentOf({ group, stops, ...rest }: IntentParts): Intent {
  return {
    ...intentWithoutGroup({ ...rest, buffers: group.buffers?.former ?? null }),
    vms: group.vms.map((vm) => ({
      name: vm.name,
      pid: vm.process.pid,
      startTicks: vm.process.startTicks,
      qmpSocket: vm.vm.qmpSocket!,
      resumes: vm.resumes,
      stoppedAtNs: stops.get(vm.name) ?? null,
      taps: group.ports.ports
        .filter((port) => port.vm === vm.name)
        .map((port) => ({
          tap: port.name,
          ifindex: port.ifindex,
          slot: group.ports.slotOf(port),
          preloadedFrom: group.ports.preloadedFrom(port),
        })),
    })),
    gate: group.ports.identity,
    edge: describeEdge(group.edge),
  };
}
