import type { SwitchPort } from '../../protocol/vm.ts';
import type { MacEntry } from '../switches/mac-table.ts';

/** A port that markers are sent from, and its place in a switch. */
export interface MarkerPort {
  readonly tap: string;
  readonly mac: string;
  readonly switchPort: SwitchPort | null;
}

/** An address on some host; a marker to it goes behind every frame for that host. */
export interface MarkerDestination {
  readonly host: string;
  readonly mac: string;
}

/** From a port to a host, through the port's switch. */
export interface MarkerPath {
  readonly tap: string;
  readonly host: string;
  readonly destination: string;
  /** The VLAN of the frame's tag; null: none. */
  readonly vlan: number | null;
}

/** More paths than that a host: then the first port of each segment sends for all of it. */
export const pathsMax = 2000;
/** An entry that is about to be forgotten would have the marker flooded: Open vSwitch keeps one for 300 s by default. */
const ageMaxS = 280;

interface Candidate extends MarkerPath {
  readonly ageS: number;
}

/**
 * Which markers a host sends: for each of its ports and each host, one to an address that the port's switch has
 * learnt, so that none is flooded. Of several, the one that was seen last.
 */
export function chooseMarkerPaths(
  ports: readonly MarkerPort[],
  tables: ReadonlyMap<string, readonly MacEntry[]>,
  destinations: readonly MarkerDestination[],
): MarkerPath[] {
  const hostOf = new Map(destinations.map(({ mac, host }) => [mac.toLowerCase(), host]));
  const reached = new Map(
    [...tables].map(([bridge, entries]) => [bridge, entries.filter((entry) => isReachable(entry, hostOf))]),
  );
  const all = ports.map((port) => ({ port, paths: pathsOf(port, reached, hostOf) }));
  const count = all.reduce((sum, { paths }) => sum + paths.length, 0);
  const senders = count <= pathsMax ? all : all.filter(({ port }) => isFirstOfSegment(port, ports));
  return senders.flatMap(({ paths }) => paths);
}

function isReachable({ mac, ageS }: MacEntry, hostOf: ReadonlyMap<string, string>): boolean {
  return hostOf.has(mac) && (ageS ?? 0) <= ageMaxS;
}

/** One path to each host that the port can reach. */
function pathsOf(
  { tap, mac: own, switchPort }: MarkerPort,
  reached: ReadonlyMap<string, readonly MacEntry[]>,
  hostOf: ReadonlyMap<string, string>,
): MarkerPath[] {
  if (switchPort === null) return [];
  const best = new Map<string, Candidate>();
  for (const { mac, vlan, ageS } of reached.get(switchPort.bridge) ?? []) {
    const tag = tagInto(switchPort, vlan);
    const host = hostOf.get(mac)!;
    if (tag === undefined || mac === own.toLowerCase()) continue;
    const candidate = { tap, host, destination: mac, vlan: tag, ageS: ageS ?? 0 };
    if (candidate.ageS < (best.get(host)?.ageS ?? Infinity)) best.set(host, candidate);
  }
  return [...best.values()].map(({ ageS: _ageS, ...path }) => path);
}

/**
 * With which tag a frame from the port gets into a VLAN (ovs-vswitchd.conf.db(5), Port, vlan_mode); null: without
 * any, undefined: not at all.
 */
export function tagInto({ vlanMode, tag, trunks }: SwitchPort, vlan: number): number | null | undefined {
  const mode = vlanMode ?? (tag === null ? 'trunk' : 'access');
  const native = mode === 'trunk' ? 0 : (tag ?? 0);
  if (vlan === native) return null;
  if (mode === 'access' || mode === 'dot1q-tunnel') return undefined;
  return trunks.length === 0 || trunks.includes(vlan) ? vlan : undefined;
}

const segmentOf = ({ switchPort }: MarkerPort) =>
  `${switchPort?.bridge} ${switchPort?.vlanMode} ${switchPort?.tag} ${switchPort?.trunks.join()}`;

function isFirstOfSegment(port: MarkerPort, ports: readonly MarkerPort[]): boolean {
  return ports.find((other) => segmentOf(other) === segmentOf(port)) === port;
}
