import { StaghornError } from '../errors/index.ts';
import { bare, FIRST_VM, macOf, needAddress, subnetFrom } from './addressing.ts';
import { networksOf } from './nic-checks.ts';
import type { DiskFile, LabFile } from './schema.ts';
import type { Shape } from './shaping.ts';
import { containsAddress } from './subnet.ts';

type VmFile = LabFile['vms'][number];
type NicFile = VmFile['nics'][number];

/** One of a guest's interfaces: a NIC's own, or in a trunk one for each network. */
export interface InterfacePlan {
  readonly network: string;
  /** With the prefix length. */
  readonly address: string;
  /** The tag that the guest puts on and takes off; null if the switch does. */
  readonly vlan: number | null;
}

export interface NicPlan {
  readonly tap: string;
  readonly mac: string;
  readonly switch: string;
  readonly model: NicFile['model'];
  readonly queues: number;
  readonly vhost: NicFile['vhost'];
  readonly offloads: boolean;
  readonly capture: boolean;
  readonly mtuBytes: number;
  readonly shape: Shape | null;
  /** The access VLAN of the tap's port; null: untagged, or a trunk. */
  readonly vlan: number | null;
  readonly interfaces: readonly InterfacePlan[];
}

export interface PeerPlan {
  readonly id: number;
  readonly address: string;
  readonly mac: string;
  /** The place of the NIC in the VM, and the tag if it is a trunk: "0", "1.20". */
  readonly nic: string;
  readonly udpIntervalMs: number;
  /** 0: no stream, -1: as fast as the receiver's window allows. */
  readonly tcpBytesPerSecond: number;
}

/** Debian's kernel for clouds boots fastest, and knows no other NICs than virtio's. */
export type GuestKernel = 'cloud' | 'full';

export interface VmPlan {
  readonly id: number;
  readonly name: string;
  readonly host: string;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly kernel: GuestKernel;
  readonly nics: readonly NicPlan[];
  readonly disks: readonly DiskFile[];
  readonly peers: readonly PeerPlan[];
  readonly reportIntervalMs: number;
  /** The shortest retransmission timeout of the streams that it sends. */
  readonly tcpLeastTimeoutMs: number;
  readonly tcp: { readonly windowBytes: number; readonly segmentBytes: number } | null;
}

type PlannedVm = Omit<VmPlan, 'peers'> & { readonly file: VmFile };

function planInterfaces(nic: NicFile, networks: LabFile['networks'], vmIndex: number): InterfacePlan[] {
  return networks.map(({ name, subnet: text, vlan }) => {
    const subnet = subnetFrom(text);
    if (nic.ip !== undefined && !containsAddress(subnet, nic.ip))
      throw new StaghornError('invalid-input', `vms[${vmIndex}].nics: ${nic.ip} is not in ${text}`);
    const address =
      nic.ip === undefined
        ? needAddress(subnet, FIRST_VM + vmIndex, 'its VMs')
        : `${nic.ip}/${subnet.prefix}`;
    return { network: name, address, vlan: nic.trunk === undefined ? null : (vlan ?? null) };
  });
}

function planNic(lab: LabFile, vmIndex: number, nicIndex: number): NicPlan {
  const nic = lab.vms[vmIndex]!.nics[nicIndex]!;
  const networks = networksOf(nic, lab.networks);
  return {
    tap: `tap${vmIndex}-${nicIndex}`,
    mac: nic.mac ?? macOf(0x02, vmIndex, nicIndex),
    switch: nic.switch,
    model: nic.model,
    queues: nic.queues,
    vhost: nic.vhost,
    offloads: nic.offloads === 'on',
    capture: nic.capture,
    mtuBytes: Math.max(...networks.map(({ mtu }) => mtu)),
    shape: nic.shape ?? null,
    vlan: nic.trunk === undefined ? (networks[0]!.vlan ?? null) : null,
    interfaces: planInterfaces(nic, networks, vmIndex),
  };
}

const needsFullKernel = ({ model, trunk }: NicFile): boolean => model !== 'virtio' || trunk !== undefined;

function planVm(lab: LabFile, index: number): PlannedVm {
  const file = lab.vms[index]!;
  const { probe } = file;
  return {
    file,
    id: index + 1,
    name: file.name,
    host: file.host,
    memoryMiB: file.memoryMiB,
    cpus: file.cpus,
    kernel: file.nics.some(needsFullKernel) ? 'full' : 'cloud',
    nics: file.nics.map((_, n) => planNic(lab, index, n)),
    disks: file.disks,
    reportIntervalMs: probe.reportIntervalMs,
    tcpLeastTimeoutMs: probe.tcpLeastTimeoutMs,
    tcp: probe.tcp
      ? { windowBytes: probe.tcpWindowBytes ?? 0, segmentBytes: probe.tcpSegmentBytes ?? 0 }
      : null,
  };
}

/** Every interface of a VM, with the NIC that it is on. */
function interfacesOf(vm: PlannedVm): { nic: NicPlan; index: number; on: InterfacePlan }[] {
  return vm.nics.flatMap((nic, index) => nic.interfaces.map((on) => ({ nic, index, on })));
}

/** Two VMs are peers on the first network that both are in, if it is on switches of one name. */
function peersOf(vm: PlannedVm, all: readonly PlannedVm[]): PeerPlan[] {
  return all
    .filter((other) => other !== vm)
    .flatMap((other): PeerPlan[] => {
      const pairs = interfacesOf(vm).flatMap((mine) =>
        interfacesOf(other)
          .filter(({ nic, on }) => on.network === mine.on.network && nic.switch === mine.nic.switch)
          .map((theirs) => ({ mine, theirs })),
      );
      const meeting = pairs[0];
      if (meeting === undefined) return [];
      const { mine, theirs } = meeting;
      const { probe } = other.file;
      const chosen = probe.tcpFrom[vm.name] ?? probe.tcpBytesPerSecond;
      const rate = chosen === 'unlimited' ? -1 : chosen;
      return [
        {
          id: other.id,
          address: bare(theirs.on.address),
          mac: theirs.nic.mac,
          nic: mine.on.vlan === null ? String(mine.index) : `${mine.index}.${mine.on.vlan}`,
          udpIntervalMs: probe.udpIntervalMs,
          tcpBytesPerSecond: probe.tcp ? rate : 0,
        },
      ];
    });
}

function checkDistinct(keys: readonly { vm: string; what: string; key: string }[]): void {
  const seen = new Map<string, string>();
  for (const { vm, what, key } of keys) {
    const other = seen.get(key);
    if (other !== undefined)
      throw new StaghornError('invalid-input', `VMs "${other}" and "${vm}" have the same ${what}`);
    seen.set(key, vm);
  }
}

/** @throws StaghornError 'invalid-input' where addresses do not fit their subnets or clash */
export function planVms(lab: LabFile): VmPlan[] {
  const vms = lab.vms.map((_, index) => planVm(lab, index));
  const interfaces = vms.flatMap((vm) => interfacesOf(vm).map((one) => ({ vm: vm.name, ...one })));
  checkDistinct(
    interfaces.map(({ vm, on }) => ({
      vm,
      what: `address ${on.address}`,
      key: `${on.network} ${on.address}`,
    })),
  );
  checkDistinct(
    vms.flatMap((vm) => vm.nics.map(({ mac }) => ({ vm: vm.name, what: `mac ${mac}`, key: mac }))),
  );
  return vms.map(({ file: _file, ...vm }, index) => ({ ...vm, peers: peersOf(vms[index]!, vms) }));
}
