import type { ArmedPort } from './rpc.ts';

/** Two, so that a port which is an address itself has another one to send to. */
export const targetsOfSegment = 2;

/** The ports that markers are addressed to: the first of each segment. A port that is in no switch has no segment. */
export function addresseesBySegment(ports: readonly ArmedPort[]): Map<string, ArmedPort[]> {
  const segments = new Map<string, ArmedPort[]>();
  for (const port of ports) {
    if (port.bridge === null) continue;
    const segment = `${port.bridge} ${port.vlan ?? ''}`;
    const chosen = segments.get(segment);
    if (chosen === undefined) segments.set(segment, [port]);
    else if (chosen.length < targetsOfSegment) chosen.push(port);
  }
  return segments;
}
