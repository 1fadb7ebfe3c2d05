import type { Random } from './random.ts';

/** VLANs of a network; 0 stands for frames without a tag. */
export const vlans = [0, 10, 20] as const;
export type Vlan = (typeof vlans)[number];

/** How a tap is plugged in: as an access port of a VLAN, or as a trunk of all. */
export type Plug = { readonly access: 10 | 20 } | 'trunk';

export interface Shape {
  readonly kind: 'tbf' | 'htb';
  /** How much more it lets through than may come to the station on average. */
  readonly headroom: number;
}

export interface Station {
  readonly name: string;
  readonly host: number;
  /** Stations of different networks are on different bridges, and never meet. */
  readonly network: number;
  readonly mac: string;
  readonly device: string;
  readonly plug: Plug;
  readonly mtu: number;
  readonly vnetHeaderBytes: 0 | 12;
  readonly shape: Shape | null;
}

export interface Topology {
  readonly hosts: number;
  readonly networks: number;
  readonly tunnel: 'vxlan' | 'geneve' | 'gre';
  readonly stations: readonly Station[];
  /** For how long frames are under way to each host; null: for no time, by a bridge. */
  readonly delaysMs: readonly number[] | null;
}

/** Whether frames of a VLAN pass a station's port. */
export function carries({ plug }: Station, vlan: Vlan): boolean {
  return plug === 'trunk' || plug.access === vlan;
}

function drawStation(
  random: Random,
  place: number,
  topology: Omit<Topology, 'stations' | 'delaysMs'>,
): Station {
  return {
    name: `s${place}`,
    // Every host has a station, and every network has two.
    host: place < topology.hosts ? place : random.integer(0, topology.hosts - 1),
    network: place % topology.networks,
    mac: `02:5a:00:00:00:${place.toString(16).padStart(2, '0')}`,
    device: `tap${place}`,
    // One trunk in each network: it can talk to every other station.
    plug:
      place < topology.networks || random.chance(0.4) ? 'trunk' : { access: random.pick([10, 20] as const) },
    mtu: random.pick([1500, 1500, 4000, 8900]),
    vnetHeaderBytes: random.pick([0, 12] as const),
    shape: random.chance(0.4)
      ? { kind: random.pick(['tbf', 'htb'] as const), headroom: 1.2 + random.fraction() }
      : null,
  };
}

/** Longer than it takes from a cut to the saving of what has come: a drain that is left out shows. */
export function drawDelaysMs(random: Random, hosts: number): number[] | null {
  return hosts > 1 && random.chance(0.6) ? random.times(hosts, () => random.integer(40, 150)) : null;
}

export function drawTopology(random: Random): Omit<Topology, 'delaysMs'> {
  const hosts = random.integer(1, 4);
  const networks = random.pick([1, 1, 2]);
  const tunnel = random.pick(['vxlan', 'geneve', 'gre'] as const);
  const count = Math.max(hosts, 2 * networks) + random.integer(0, 3);
  const frame = { hosts, networks, tunnel };
  return { ...frame, stations: random.times(count, (place) => drawStation(random, place, frame)) };
}

function describePlug(plug: Plug): string {
  return plug === 'trunk' ? plug : `access ${plug.access}`;
}

export function describeTopology({ hosts, networks, tunnel, stations, delaysMs }: Topology): string[] {
  const lines = stations.map(({ name, host, network, plug, mtu, vnetHeaderBytes, shape }) => {
    const parts = [`host ${host}`, `network ${network}`, describePlug(plug), `MTU ${mtu}`];
    if (vnetHeaderBytes > 0) parts.push('vnet_hdr');
    if (shape !== null) parts.push(`${shape.kind} with ${shape.headroom.toFixed(2)} of the rate`);
    return `  ${name}: ${parts.join(', ')}`;
  });
  const wire = delaysMs === null ? '' : `, ${delaysMs.join(', ')} ms away`;
  return [`${hosts} hosts${wire}, ${networks} networks, ${tunnel}`, ...lines];
}
