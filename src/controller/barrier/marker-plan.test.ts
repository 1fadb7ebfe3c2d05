import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import type { ArmedPort, NamesByHost } from '../../protocol/rpc.ts';
import {
  markedHostsMax,
  planTargets,
  sourcesByHost,
  unmarkedPairs,
  unmarkedWarnings,
  unprovenWarnings,
} from './marker-plan.ts';
import { targetsOfSegment } from '../../protocol/marker-addressees.ts';

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
    const targets = { h1: ['a', 'b', 'd'], h2: ['e'] };
    expect([...planTargets(ports)]).toEqual([
      ['h1', targets],
      ['h2', targets],
    ]);
    expect(unmarkedPairs(ports)).toBe(0);
  });

  it('has an address other than its own for every port that shares a segment', () => {
    const segment = fc.record({
      bridge: fc.constantFrom('br0', 'br1'),
      vlan: fc.constantFrom(null, 5, 6),
    });
    fc.assert(
      fc.property(fc.array(segment, { maxLength: 30 }), (segments) => {
        const ports = segments.map(({ bridge, vlan }, place) => port(String(place), bridge, vlan));
        const targets = planTargets(new Map([['h1', ports]])).get('h1')!['h1']!;
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
    const sent = new Map<string, NamesByHost>([
      ['h1', { h1: ['a'], h2: ['a', 'b'] }],
      ['h2', { h1: ['e'] }],
    ]);
    expect(sourcesByHost(sent).get('h1')).toEqual({ h1: ['a'], h2: ['e'] });
    expect(sourcesByHost(sent).get('h2')).toEqual({ h1: ['a', 'b'] });
    expect(sourcesByHost(sent).get('h3')).toBeUndefined();
  });

  it('sends from each of very many hosts to as many as send to it, its own VLANs first', () => {
    const hosts = Array.from({ length: 200 }, (_, place) => `h${place}`);
    const ports = new Map(
      hosts.map((host, place) => [
        host,
        [port(`${host}-a`, 'br', null), port(`${host}-b`, 'br', place % 20)],
      ]),
    );
    const targets = planTargets(ports);
    const hostsOf = (host: string) => new Set(Object.keys(targets.get(host)!));
    const senders = hosts.map((host) => hosts.filter((from) => hostsOf(from).has(host)).length);
    expect(new Set(hosts.map((host) => hostsOf(host).size))).toEqual(new Set([markedHostsMax]));
    expect(new Set(senders)).toEqual(new Set([markedHostsMax]));
    expect(hostsOf('h0').has('h0')).toBe(true);
    for (let place = 0; place < 200; place += 20) expect(hostsOf('h0').has(`h${place}`)).toBe(true);
    expect(unmarkedPairs(ports)).toBe(200 * (200 - markedHostsMax));
    expect(unmarkedWarnings(unmarkedPairs(ports))).toHaveLength(1);
    expect(unmarkedWarnings(0)).toEqual([]);
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
