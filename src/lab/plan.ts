import { createHash } from 'node:crypto';
import { StaghornError } from '../errors/index.ts';
import type { LabFile, Shaping } from './schema.ts';
import { addressIn, containsAddress, parseSubnet, type Subnet } from './subnet.ts';

/**
 * A lab file with everything derived: names, addresses, MACs, peers. Pure, and the same for the same file, so that
 * what is to be made is known (and recorded) before any of it is made.
 */
export interface LabPlan {
  readonly name: string;
  readonly accelerator: LabFile['accelerator'];
  readonly bootDeadlineMs: number;
  readonly management: { readonly subnet: string; readonly bridge: string; readonly address: string };
  /** The namespace that holds the wire between the hosts. */
  readonly wireNamespace: string;
  readonly hosts: readonly HostPlan[];
  readonly vms: readonly VmPlan[];
}

export interface HostPlan {
  readonly name: string;
  readonly namespace: string;
  /** The root namespace's end of the management link. */
  readonly managementLink: string;
  /** With the prefix length: "198.18.0.11/24". */
  readonly managementAddress: string;
  readonly wireLink: string;
  readonly underlayAddress: string;
  readonly underlayMac: string;
  readonly monotonicOffsetSeconds: number;
  readonly switches: readonly string[];
  readonly tunnels: readonly TunnelPlan[];
}

export interface TunnelPlan {
  readonly name: string;
  readonly switch: string;
  readonly remoteAddress: string;
  readonly remoteMac: string;
  readonly key: number;
  /** In a full mesh no tunnel forwards to another one, or frames would go round for ever. */
  readonly protected: boolean;
}

export interface NicPlan {
  readonly tap: string;
  readonly mac: string;
  readonly address: string;
  readonly network: string;
  readonly switch: string;
  readonly vlan: number | null;
  readonly shape: Shaping | null;
}

export interface PeerPlan {
  readonly id: number;
  readonly address: string;
  readonly mac: string;
  readonly nic: number;
  readonly udpIntervalMs: number;
  /** 0: no stream, -1: as fast as the receiver's window allows. */
  readonly tcpBytesPerSecond: number;
}

export interface VmPlan {
  readonly id: number;
  readonly name: string;
  readonly host: string;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly nics: readonly NicPlan[];
  readonly peers: readonly PeerPlan[];
  readonly reportIntervalMs: number;
  readonly tcp: { readonly windowBytes: number; readonly segmentBytes: number } | null;
}

type VmFile = LabFile['vms'][number];
type PlannedVm = Omit<VmPlan, 'peers'> & { readonly file: VmFile };

/** Host i has address FIRST_HOST + i in each subnet, VM i address FIRST_VM + i in its networks. */
const FIRST_HOST = 11;
const FIRST_VM = 1;

function needAddress(subnet: Subnet, n: number, what: string): string {
  const address = addressIn(subnet, n);
  if (address === undefined) throw new StaghornError('invalid-input', `the subnet is too small for ${what}`);
  return `${address}/${subnet.prefix}`;
}

function bare(address: string): string {
  return address.split('/', 1)[0]!;
}

function subnetFrom(text: string): Subnet {
  const subnet = parseSubnet(text);
  if (subnet === undefined) throw new StaghornError('invalid-input', `${text} is no subnet`);
  return subnet;
}

/** Interface names have 15 characters at most, so the lab's name goes in as a hash. */
function linkPrefix(lab: string): string {
  return `sg${createHash('sha256').update(lab).digest('hex').slice(0, 6)}`;
}

function macOf(kind: number, major: number, minor: number): string {
  const bytes = [0x02, 0x53, 0x47, kind, major, minor];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

function meshOf(lab: LabFile): NonNullable<LabFile['links']> {
  return lab.hosts.flatMap((from, i) =>
    lab.hosts
      .slice(i + 1)
      .flatMap((to) =>
        from.switches
          .filter(({ name }) => to.switches.some((other) => other.name === name))
          .map(({ name }) => ({ from: from.name, to: to.name, type: 'vxlan' as const, switch: name })),
      ),
  );
}

/** Tunnels of one host; a key is shared by a switch's tunnels, so that switches of one host stay apart. */
function tunnelsOf(lab: LabFile, host: string, underlay: Subnet): TunnelPlan[] {
  const links = lab.links ?? meshOf(lab);
  const switchNames = [...new Set(lab.hosts.flatMap(({ switches }) => switches.map(({ name }) => name)))];
  return links
    .filter(({ from, to }) => from === host || to === host)
    .map((link, index) => {
      const remote = lab.hosts.findIndex(({ name }) => name === (link.from === host ? link.to : link.from));
      return {
        name: `vx${index}`,
        switch: link.switch,
        remoteAddress: bare(needAddress(underlay, FIRST_HOST + remote, 'its hosts')),
        remoteMac: macOf(0x01, 0, remote),
        key: link.key ?? 100 + switchNames.indexOf(link.switch),
        protected: lab.links === undefined,
      };
    });
}

function planHost(lab: LabFile, index: number): HostPlan {
  const host = lab.hosts[index]!;
  const [management, underlay] = [subnetFrom(lab.management), subnetFrom(lab.underlay)];
  return {
    name: host.name,
    namespace: `${lab.name}-${host.name}`,
    managementLink: `${linkPrefix(lab.name)}m${index}`,
    managementAddress: needAddress(management, FIRST_HOST + index, 'its hosts'),
    wireLink: `h${index}`,
    underlayAddress: needAddress(underlay, FIRST_HOST + index, 'its hosts'),
    underlayMac: macOf(0x01, 0, index),
    monotonicOffsetSeconds: host.clock?.monotonicOffsetSeconds ?? 0,
    switches: host.switches.map(({ name }) => name),
    tunnels: tunnelsOf(lab, host.name, underlay),
  };
}

function planNic(lab: LabFile, vmIndex: number, nicIndex: number): NicPlan {
  const nic = lab.vms[vmIndex]!.nics[nicIndex]!;
  const network = lab.networks.find(({ name }) => name === nic.network) ?? lab.networks[0]!;
  const subnet = subnetFrom(network.subnet);
  if (nic.ip !== undefined && !containsAddress(subnet, nic.ip))
    throw new StaghornError(
      'invalid-input',
      `vms[${vmIndex}].nics[${nicIndex}].ip: ${nic.ip} is not in ${network.subnet}`,
    );
  return {
    tap: `tap${vmIndex}-${nicIndex}`,
    mac: nic.mac ?? macOf(0x02, vmIndex, nicIndex),
    address:
      nic.ip === undefined
        ? needAddress(subnet, FIRST_VM + vmIndex, 'its VMs')
        : `${nic.ip}/${subnet.prefix}`,
    network: network.name,
    switch: nic.switch,
    vlan: network.vlan ?? null,
    shape: nic.shape ?? null,
  };
}

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
    nics: file.nics.map((_, n) => planNic(lab, index, n)),
    reportIntervalMs: probe.reportIntervalMs,
    tcp: probe.tcp
      ? { windowBytes: probe.tcpWindowBytes ?? 0, segmentBytes: probe.tcpSegmentBytes ?? 0 }
      : null,
  };
}

/** Two VMs are peers on the first network that both are in, if it is on switches of one name. */
function peersOf(vm: PlannedVm, all: readonly PlannedVm[]): PeerPlan[] {
  return all
    .filter((other) => other !== vm)
    .flatMap((other) => {
      const meets = (mine: NicPlan, theirs: NicPlan): boolean =>
        mine.network === theirs.network && mine.switch === theirs.switch;
      const nic = vm.nics.findIndex((mine) => other.nics.some((theirs) => meets(mine, theirs)));
      const theirs = other.nics.find((candidate) => nic >= 0 && meets(vm.nics[nic]!, candidate));
      if (theirs === undefined) return [];
      const { probe } = other.file;
      const chosen = probe.tcpFrom[vm.name] ?? probe.tcpBytesPerSecond;
      const rate = chosen === 'unlimited' ? -1 : chosen;
      const address = bare(theirs.address);
      const tcpBytesPerSecond = probe.tcp ? rate : 0;
      return [
        {
          id: other.id,
          address,
          mac: theirs.mac,
          nic,
          udpIntervalMs: probe.udpIntervalMs,
          tcpBytesPerSecond,
        },
      ];
    });
}

function checkDistinct(vms: readonly PlannedVm[], what: 'address' | 'mac'): void {
  const seen = new Map<string, string>();
  for (const vm of vms) {
    for (const nic of vm.nics) {
      const key = what === 'mac' ? nic.mac : `${nic.network} ${nic.address}`;
      const other = seen.get(key);
      if (other !== undefined)
        throw new StaghornError(
          'invalid-input',
          `VMs "${other}" and "${vm.name}" have the same ${what} ${nic[what]}`,
        );
      seen.set(key, vm.name);
    }
  }
}

/** @throws StaghornError 'invalid-input' where addresses do not fit their subnets or clash */
export function planLab(lab: LabFile): LabPlan {
  const management = subnetFrom(lab.management);
  const vms = lab.vms.map((_, index) => planVm(lab, index));
  checkDistinct(vms, 'address');
  checkDistinct(vms, 'mac');
  return {
    name: lab.name,
    accelerator: lab.accelerator,
    bootDeadlineMs: lab.bootDeadlineSeconds * 1000,
    management: {
      subnet: lab.management,
      bridge: `${linkPrefix(lab.name)}b`,
      address: needAddress(management, 1, 'its bridge'),
    },
    wireNamespace: `${lab.name}.wire`,
    hosts: lab.hosts.map((_, index) => planHost(lab, index)),
    vms: vms.map(({ file: _file, ...vm }, index) => ({ ...vm, peers: peersOf(vms[index]!, vms) })),
  };
}
