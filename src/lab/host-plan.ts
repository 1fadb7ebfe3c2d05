import { createHash } from 'node:crypto';
import { bare, FIRST_HOST, macOf, needAddress, subnetFrom } from './addressing.ts';
import type { LabFile } from './schema.ts';
import type { Shape } from './shaping.ts';

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

type LinkFile = NonNullable<LabFile['links']>[number];

export interface TunnelPlan {
  readonly name: string;
  readonly type: LinkFile['type'];
  readonly switch: string;
  readonly remote: string;
  readonly remoteAddress: string;
  readonly remoteMac: string;
  readonly key: number;
  /** In a full mesh no tunnel forwards to another one, or frames would go round for ever. */
  readonly protected: boolean;
  /** What the link does to frames that leave by it. */
  readonly shape: Shape | null;
  /** The largest outer packet without its Ethernet header. */
  readonly mtuBytes: number;
}

/** What a tunnel adds at most: an inner Ethernet header with a VLAN tag, and outer IPv4, UDP and Geneve or VXLAN. */
const TUNNEL_OVERHEAD_BYTES = 18 + 20 + 8 + 8;

/** Interfaces begin with these, so that a list of ports tells the types. */
const tunnelPrefix: Readonly<Record<LinkFile['type'], string>> = { vxlan: 'vx', geneve: 'gn', gre: 'gr' };

/** Interface names have 15 characters at most, so the lab's name goes in as a hash. */
export function linkPrefix(lab: string): string {
  return `sg${createHash('sha256').update(lab).digest('hex').slice(0, 6)}`;
}

function meshOf(lab: LabFile): LinkFile[] {
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
function tunnelsOf(lab: LabFile, host: string): TunnelPlan[] {
  const underlay = subnetFrom(lab.underlay);
  const links = lab.links ?? meshOf(lab);
  const switchNames = [...new Set(lab.hosts.flatMap(({ switches }) => switches.map(({ name }) => name)))];
  const mtuBytes = TUNNEL_OVERHEAD_BYTES + Math.max(...lab.networks.map(({ mtu }) => mtu));
  return links
    .filter(({ from, to }) => from === host || to === host)
    .map((link, index) => {
      const remote = lab.hosts.findIndex(({ name }) => name === (link.from === host ? link.to : link.from));
      const shape = link.from === host ? link.shape : (link.shapeBack ?? link.shape);
      return {
        name: `${tunnelPrefix[link.type]}${index}`,
        type: link.type,
        switch: link.switch,
        remote: lab.hosts[remote]!.name,
        remoteAddress: bare(needAddress(underlay, FIRST_HOST + remote, 'its hosts')),
        remoteMac: macOf(0x01, 0, remote),
        key: link.key ?? 100 + switchNames.indexOf(link.switch),
        protected: lab.links === undefined,
        shape: shape ?? null,
        mtuBytes,
      };
    });
}

/** @throws StaghornError 'invalid-input' where a subnet is too small */
export function planHost(lab: LabFile, index: number): HostPlan {
  const host = lab.hosts[index]!;
  return {
    name: host.name,
    namespace: `${lab.name}-${host.name}`,
    managementLink: `${linkPrefix(lab.name)}m${index}`,
    managementAddress: needAddress(subnetFrom(lab.management), FIRST_HOST + index, 'its hosts'),
    wireLink: `h${index}`,
    underlayAddress: needAddress(subnetFrom(lab.underlay), FIRST_HOST + index, 'its hosts'),
    underlayMac: macOf(0x01, 0, index),
    monotonicOffsetSeconds: host.clock?.monotonicOffsetSeconds ?? 0,
    switches: host.switches.map(({ name }) => name),
    tunnels: tunnelsOf(lab, host.name),
  };
}
