import { addresseesBySegment } from '../../protocol/marker-addressees.ts';
import type { ArmedPort, MarkerSource, NamesByHost } from '../../protocol/rpc.ts';

/** Who sends markers to whom (docs/protocol.md#markers): pure. */

/** More are told by their number. */
const namedPaths = 10;

/**
 * To so many hosts each host sends at most, its own included. Every pair of hosts would be the square of their number:
 * at 1,000 hosts a million paths, and more frames of ours than of the experiment's.
 */
export const markedHostsMax = 32;
/** And to so many addresses, which counts where hosts have many segments. */
export const markedAddressesMax = 2048;

type Ports = ReadonlyMap<string, readonly ArmedPort[]>;

/** For each host the addresses that it sends to: a few in each segment of the hosts that it sends to. */
export function planTargets(ports: Ports): Map<string, NamesByHost> {
  const ofHost = new Map([...ports].map(([host, own]) => [host, addresseesOf(own).map(({ mac }) => mac)]));
  const targetsOf = (hosts: readonly string[]) =>
    Object.fromEntries(hosts.map((host) => [host, ofHost.get(host)!]));
  return new Map([...markedHosts(ports)].map(([host, hosts]) => [host, targetsOf(hosts)]));
}

/** How many ordered pairs of hosts have no markers between them. */
export function unmarkedPairs(ports: Ports): number {
  return [...markedHosts(ports).values()].reduce((sum, hosts) => sum + ports.size - hosts.length, 0);
}

/**
 * Which hosts each host sends to: all of them; where they are too many, those that come next in the order of hosts,
 * first of its own VLANs, so that each host has as many senders as addressees.
 */
function markedHosts(ports: Ports): Map<string, string[]> {
  const all = [...ports.keys()];
  const widest = Math.max(1, ...[...ports.values()].map((own) => addresseesOf(own).length));
  const most = Math.min(markedHostsMax, Math.ceil(markedAddressesMax / widest));
  if (all.length <= most) return new Map(all.map((host) => [host, all]));
  const members = membersOfVlans(ports);
  return new Map(
    all.map((host) => {
      const rings = [...vlansOf(ports.get(host)!)].map((vlan) => members.get(vlan)!);
      return [host, nextOf(host, [...rings, { hosts: all, placeOf: members.get(null)!.placeOf }], most)];
    }),
  );
}

interface Ring {
  readonly hosts: readonly string[];
  readonly placeOf: ReadonlyMap<string, number>;
}

const vlansOf = (ports: readonly ArmedPort[]) => new Set(ports.map(({ vlan }) => vlan));

/** Of null, which is no VLAN, everybody is a member. */
function membersOfVlans(ports: Ports): Map<number | null, Ring> {
  const hostsOf = new Map<number | null, string[]>([[null, [...ports.keys()]]]);
  for (const [host, own] of ports) {
    for (const vlan of vlansOf(own)) {
      if (vlan === null) continue;
      const hosts = hostsOf.get(vlan);
      if (hosts === undefined) hostsOf.set(vlan, [host]);
      else hosts.push(host);
    }
  }
  const ring = (hosts: readonly string[]) => ({
    hosts,
    placeOf: new Map(hosts.map((host, place) => [host, place])),
  });
  return new Map([...hostsOf].map(([vlan, hosts]) => [vlan, ring(hosts)]));
}

/** The host itself and those after it, one of each ring in turn. */
function nextOf(host: string, rings: readonly Ring[], most: number): string[] {
  const chosen = new Set([host]);
  for (let step = 1; step < most; step++) {
    for (const { hosts, placeOf } of rings) {
      if (step >= hosts.length) continue;
      if (chosen.size === most) return [...chosen];
      chosen.add(hosts[(placeOf.get(host)! + step) % hosts.length]!);
    }
  }
  return [...chosen];
}

const addresseesOf = (ports: readonly ArmedPort[]) => [...addresseesBySegment(ports).values()].flat();

/** For each host, which ports of which hosts send markers to it. */
export function sourcesByHost(sent: ReadonlyMap<string, NamesByHost>): Map<string, NamesByHost> {
  const sources = new Map<string, NamesByHost>();
  for (const [from, toHosts] of sent) {
    for (const [host, taps] of Object.entries(toHosts)) {
      const ofHost = sources.get(host) ?? {};
      ofHost[from] = taps;
      sources.set(host, ofHost);
    }
  }
  return sources;
}

/** What a snapshot says of paths on which no marker came; empty if all came. */
export function unprovenWarnings(missing: readonly MarkerSource[]): string[] {
  const named = missing
    .slice(0, namedPaths)
    .map(
      ({ host, tap }) =>
        `unproven path from port ${tap} of host ${host}: drained by backlogs and a quiet interval alone`,
    );
  const rest = missing.length - named.length;
  return rest === 0 ? named : [...named, `and ${rest} more unproven paths`];
}

/** What a snapshot says of pairs of hosts between which none was sent; empty if there are none. */
export function unmarkedWarnings(pairs: number): string[] {
  if (pairs === 0) return [];
  return [
    `no markers between ${pairs} pairs of hosts, since there are so many: drained by backlogs and a quiet interval alone`,
  ];
}
