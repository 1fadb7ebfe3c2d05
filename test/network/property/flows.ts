import type { FlowPlan } from '../../../src/bench/traffic/index.ts';
import type { Random } from './random.ts';
import { carries, vlans } from './topology.ts';
import type { Station, Topology, Vlan } from './topology.ts';

type Plan = Pick<Topology, 'stations'>;

const etherTypes = [0x88b6, 0x88b6, 0x88b5, 0x9999, 0x8137, 0x22f0, 0x0060];
const groups = ['ff:ff:ff:ff:ff:ff', '01:00:5e:01:02:03', '33:33:00:00:00:05'];
const ethernetHeaderBytes = 14;
/** An access port adds one tag, and a guest may have put on two. */
const tagRoomBytes = 8;
const leastBytes = 46;

export interface DrawnFlow extends FlowPlan {
  /** Stations that a switch may flood it to: an address that sends nothing in a VLAN is never learnt there. */
  readonly reaches: readonly string[];
}

interface Place {
  readonly station: Station;
  readonly vlan: Vlan;
  /** All others in the same broadcast domain. */
  readonly peers: readonly Station[];
}

function domainOf(station: Station, vlan: Vlan, { stations }: Plan): readonly Station[] {
  return stations.filter(
    (other) => other !== station && other.network === station.network && carries(other, vlan),
  );
}

/** Where the station may send: every VLAN in which it is not alone. */
function placesOf(station: Station, topology: Plan): Place[] {
  return vlans
    .filter((vlan) => carries(station, vlan))
    .map((vlan) => ({ station, vlan, peers: domainOf(station, vlan, topology) }))
    .filter(({ peers }) => peers.length > 0);
}

/** What the sender itself puts on; behind an access port that is the switch's affair. */
function drawTags(random: Random, { station, vlan }: Place): string[] {
  if (station.plug !== 'trunk' || vlan === 0) return [];
  return random.chance(0.3) ? [`88a8:${vlan}`, '8100:7'] : [`8100:${vlan}`];
}

/** The tag of the VLAN is taken off at access ports, and put on for trunks. */
function tagsAt(recipient: Station, { station, vlan }: Place, sent: readonly string[]): readonly string[] {
  const onTheWire = station.plug === 'trunk' ? sent : [`8100:${vlan}`, ...sent];
  return recipient.plug === 'trunk' ? onTheWire : onTheWire.slice(1);
}

function drawFlow(random: Random, id: number, place: Place): DrawnFlow {
  const { station, peers } = place;
  const group = random.chance(0.25);
  const recipients = group ? peers : [random.pick(peers)];
  const tags = drawTags(random, place);
  const mtu = Math.min(station.mtu, ...peers.map((peer) => peer.mtu));
  const maxBytes = mtu + ethernetHeaderBytes - tagRoomBytes;
  return {
    id,
    toMac: group ? random.pick(groups) : recipients[0]!.mac,
    recipients: recipients.map(({ name }) => name),
    reaches: peers.map(({ name }) => name),
    ratePerSecond: group ? random.integer(5, 40) : random.integer(20, 300),
    paced: random.chance(0.3),
    minBytes: random.integer(leastBytes, 200),
    maxBytes: random.chance(0.5) ? maxBytes : random.integer(200, maxBytes),
    etherType: random.pick(etherTypes),
    tags,
    tagsAt: Object.fromEntries(recipients.map((peer) => [peer.name, tagsAt(peer, place, tags)])),
    seed: random.integer(1, 2 ** 31),
  };
}

/** Flows by the name of their sender. */
export function drawFlows(random: Random, topology: Plan): ReadonlyMap<string, readonly DrawnFlow[]> {
  let id = 0;
  return new Map(
    topology.stations.map((station) => {
      const places = placesOf(station, topology);
      const count = places.length === 0 ? 0 : random.integer(1, 4);
      return [station.name, random.times(count, () => drawFlow(random, id++, random.pick(places)))];
    }),
  );
}

export function describeFlow(from: string, flow: FlowPlan): string {
  const { id, toMac, recipients, ratePerSecond, paced, minBytes, maxBytes, etherType, tags } = flow;
  const tagged = tags === undefined || tags.length === 0 ? '' : ` tagged ${tags.join(',')}`;
  const pace = paced === true ? 'paced' : 'Poisson';
  const sizes = `${minBytes} to ${maxBytes} bytes of 0x${etherType?.toString(16).padStart(4, '0')}${tagged}`;
  return `  flow ${id}: ${from} to ${toMac} (${recipients.join(', ')}), ${ratePerSecond}/s ${pace}, ${sizes}`;
}
