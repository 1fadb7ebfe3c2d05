import type { ArmedPort, MarkerSource, MarkerTarget } from '../../protocol/rpc.ts';

/** Who sends markers to whom (docs/protocol.md#markers): pure. */

/** Two, so that a port which is an address itself has another one to send to. */
export const targetsOfSegment = 2;
/** More are told by their number. */
const namedPaths = 10;

/**
 * To so many hosts each host sends at most, its own included. Every pair of hosts would be the square of their number:
 * at 1,000 hosts a million paths, and more frames of ours than of the experiment's.
 */
export const markedHostsMax = 32;

type Ports = ReadonlyMap<string, readonly ArmedPort[]>;

/** For each host the addresses that it sends to: a few in each segment of the hosts that it sends to. */
export function planTargets(ports: Ports): Map<string, MarkerTarget[]> {
  const ofHost = new Map(
    [...ports].map(([host, own]) => [
      host,
      [...macsBySegment(own).values()].flat().map((mac): MarkerTarget => ({ host, mac })),
    ]),
  );
  const marked = markedHosts(ports);
  return new Map([...marked].map(([host, hosts]) => [host, hosts.flatMap((each) => ofHost.get(each)!)]));
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
  if (all.length <= markedHostsMax) return new Map(all.map((host) => [host, all]));
  const members = membersOfVlans(ports);
  return new Map(
    all.map((host) => {
      const rings = [...vlansOf(ports.get(host)!)].map((vlan) => members.get(vlan)!);
      return [host, nextOf(host, [...rings, { hosts: all, placeOf: members.get(null)!.placeOf }])];
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
function nextOf(host: string, rings: readonly Ring[]): string[] {
  const chosen = new Set([host]);
  for (let step = 1; step < markedHostsMax; step++) {
    for (const { hosts, placeOf } of rings) {
      if (step >= hosts.length) continue;
      if (chosen.size === markedHostsMax) return [...chosen];
      chosen.add(hosts[(placeOf.get(host)! + step) % hosts.length]!);
    }
  }
  return [...chosen];
}

/** The first addresses of each segment. A port that is in no switch has no segment. */
function macsBySegment(ports: readonly ArmedPort[]): Map<string, string[]> {
  const segments = new Map<string, string[]>();
  for (const { bridge, vlan, mac } of ports) {
    if (bridge === null) continue;
    const segment = `${bridge} ${vlan ?? ''}`;
    const macs = segments.get(segment);
    if (macs === undefined) segments.set(segment, [mac]);
    else if (macs.length < targetsOfSegment) macs.push(mac);
  }
  return segments;
}

/** For each host, which ports of which hosts send markers to it. */
export function sourcesByHost(
  sent: ReadonlyMap<string, readonly { readonly tap: string; readonly host: string }[]>,
): Map<string, MarkerSource[]> {
  const sources = new Map<string, MarkerSource[]>();
  for (const [from, paths] of sent) {
    for (const { tap, host } of paths) {
      const ofHost = sources.get(host);
      if (ofHost === undefined) sources.set(host, [{ host: from, tap }]);
      else ofHost.push({ host: from, tap });
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
