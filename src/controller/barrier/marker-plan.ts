import type { ArmedPort, MarkerSource, MarkerTarget } from '../../protocol/rpc.ts';

/** Who sends markers to whom (docs/protocol.md#markers): pure. */

/** Two, so that a port which is an address itself has another one to send to. */
export const targetsOfSegment = 2;
/** More are told by their number. */
const namedPaths = 10;

/** Addresses on every host: a few in each segment, which is a bridge and a VLAN. */
export function planTargets(ports: ReadonlyMap<string, readonly ArmedPort[]>): MarkerTarget[] {
  return [...ports].flatMap(([host, ofHost]) =>
    [...macsBySegment(ofHost).values()].flatMap((macs) =>
      macs.slice(0, targetsOfSegment).map((mac) => ({ host, mac })),
    ),
  );
}

/** A port that is in no switch has no segment. */
function macsBySegment(ports: readonly ArmedPort[]): Map<string, string[]> {
  const segments = new Map<string, string[]>();
  for (const { bridge, vlan, mac } of ports) {
    if (bridge === null) continue;
    const segment = `${bridge} ${vlan ?? ''}`;
    segments.set(segment, [...(segments.get(segment) ?? []), mac]);
  }
  return segments;
}

/** Which ports of which hosts send markers to a host. */
export function sourcesOf(
  host: string,
  sent: ReadonlyMap<string, readonly { readonly tap: string; readonly host: string }[]>,
): MarkerSource[] {
  return [...sent].flatMap(([from, paths]) =>
    paths.filter((path) => path.host === host).map(({ tap }) => ({ host: from, tap })),
  );
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
