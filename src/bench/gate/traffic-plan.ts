import type { EndpointPlan } from '../traffic/index.ts';
import type { NetworkHost } from './emulated-network.ts';

/** Two flows from each of eight endpoints; small frames, of which a socket buffer holds many. */
const flowsEach = 2;
const minBytes = 60;
const maxBytes = 400;

const macOf = (place: number) => `02:00:00:00:01:${place.toString(16).padStart(2, '0')}`;

/**
 * The endpoints of each host. Each sends to the next one and to the one half way round: with two hosts, half of
 * all frames and more go through the tunnel.
 */
export function planTraffic(hosts: readonly NetworkHost[], packetsPerSecond: number): EndpointPlan[][] {
  const taps = hosts.flatMap(({ taps: own, namespace }) => own.map(({ name }) => ({ name, namespace })));
  const count = taps.length;
  const plans = taps.map(({ name, namespace }, place): EndpointPlan => {
    const targets = [(place + 1) % count, (place + count / 2) % count];
    return {
      name: `e${place}`,
      mac: macOf(place),
      port: { kind: 'tap', device: name },
      namespace: namespace.path,
      flows: targets.map((target, which) => ({
        id: place * flowsEach + which,
        toMac: macOf(target),
        recipients: [`e${target}`],
        ratePerSecond: packetsPerSecond / (count * flowsEach),
        minBytes,
        maxBytes,
      })),
    };
  });
  let next = 0;
  return hosts.map(({ taps: own }) => plans.slice(next, (next += own.length)));
}
