import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { ArmedPort } from '../../protocol/rpc.ts';
import { planTargets, sourcesOf, targetsOfSegment, unprovenWarnings } from './marker-plan.ts';

const port = (mac: string, bridge: string | null, vlan: number | null): ArmedPort => ({
  vm: `vm-${mac}`,
  tap: `tap-${mac}`,
  ...{ mac, bridge, vlan },
});

describe('the plan of markers', () => {
  it('gives every host two addresses in each segment of each host, and none outside a switch', () => {
    const ports = new Map([
      ['h1', [port('a', 'br0', null), port('b', 'br0', null), port('c', 'br0', null), port('d', 'br0', 5)]],
      ['h2', [port('e', 'br1', 5), port('f', null, null)]],
    ]);
    expect(planTargets(ports)).toEqual([
      { host: 'h1', mac: 'a' },
      { host: 'h1', mac: 'b' },
      { host: 'h1', mac: 'd' },
      { host: 'h2', mac: 'e' },
    ]);
  });

  it('has an address other than its own for every port that shares a segment', () => {
    const segment = fc.record({
      bridge: fc.constantFrom('br0', 'br1'),
      vlan: fc.constantFrom(null, 5, 6),
    });
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 30 }), (segments) => {
        const ports = segments.map(({ bridge, vlan }, place) => port(String(place), bridge, vlan));
        const targets = planTargets(new Map([['h1', ports]])).map(({ mac }) => mac);
        const key = ({ bridge, vlan }: ArmedPort) => `${bridge} ${vlan}`;
        for (const one of ports) {
          const mates = ports.filter((other) => other !== one && key(other) === key(one));
          const reached = mates.filter(({ mac }) => targets.includes(mac));
          expect(reached.length > 0).toBe(mates.length > 0);
        }
        expect(targets.length).toBeLessThanOrEqual(targetsOfSegment * new Set(ports.map(key)).size);
      }),
    );
  });

  it('tells a host every port that sends to it, its own as well', () => {
    const sent = new Map([
      [
        'h1',
        [
          { tap: 'a', host: 'h1' },
          { tap: 'a', host: 'h2' },
        ],
      ],
      ['h2', [{ tap: 'e', host: 'h1' }]],
    ]);
    expect(sourcesOf('h1', sent)).toEqual([
      { host: 'h1', tap: 'a' },
      { host: 'h2', tap: 'e' },
    ]);
    expect(sourcesOf('h2', sent)).toEqual([{ host: 'h1', tap: 'a' }]);
    expect(sourcesOf('h3', sent)).toEqual([]);
  });

  it('warns of every path that no marker came on, by name or at least by number', () => {
    const missing = Array.from({ length: 12 }, (_, place) => ({ host: 'h1', tap: `tap${place}` }));
    expect(unprovenWarnings([])).toEqual([]);
    expect(unprovenWarnings(missing.slice(0, 1))).toEqual([
      'unproven path from port tap0 of host h1: drained by backlogs and a quiet interval alone',
    ]);
    expect(unprovenWarnings(missing)).toHaveLength(11);
    expect(unprovenWarnings(missing).at(-1)).toBe('and 2 more unproven paths');
  });
});
