import { describe, expect, it } from 'vitest';
import type { SwitchPort } from '../../protocol/vm.ts';
import type { MacEntry } from '../switches/mac-table.ts';
import { chooseMarkerPaths, pathsMax, tagInto, type MarkerPort } from './paths.ts';

const plain: SwitchPort = { bridge: 'br0', port: 'tap0', vlanMode: null, tag: null, trunks: [] };
const port = (tap: string, mac: string, change: Partial<SwitchPort> = {}): MarkerPort => ({
  ...{ tap, mac },
  switchPort: { ...plain, port: tap, ...change },
});
const entry = (mac: string, ageS: number | null = 1, vlan = 0): MacEntry => ({ port: 1, vlan, mac, ageS });
const tables = (...entries: MacEntry[]) => new Map([['br0', entries]]);

describe('the paths of markers', () => {
  it('lead from every port to every host of which its switch has learnt an address, to the newest', () => {
    const ports = [port('tap0', 'aa'), port('tap1', 'ab')];
    const targets = [
      { host: 'h1', mac: 'aa' },
      { host: 'h1', mac: 'ab' },
      { host: 'h2', mac: 'ba' },
      { host: 'h2', mac: 'BB' },
      { host: 'h3', mac: 'ca' },
    ];
    const known = tables(entry('aa'), entry('ab'), entry('ba', 9), entry('bb', 2), entry('dd'));
    expect(chooseMarkerPaths(ports, known, targets)).toEqual([
      { tap: 'tap0', host: 'h1', destination: 'ab', vlan: null },
      { tap: 'tap0', host: 'h2', destination: 'bb', vlan: null },
      { tap: 'tap1', host: 'h1', destination: 'aa', vlan: null },
      { tap: 'tap1', host: 'h2', destination: 'bb', vlan: null },
    ]);
  });

  it('lead to no address that the switch is about to forget, but to one that it never forgets', () => {
    const targets = ['ba', 'ca', 'da'].map((mac) => ({ host: mac, mac }));
    const known = tables(entry('ba', 299), entry('ca', null), entry('da', 250));
    const paths = chooseMarkerPaths([port('tap0', 'aa')], known, targets);
    expect(paths.map(({ host }) => host)).toEqual(['ca', 'da']);
  });

  it('stay in their bridge and their VLAN', () => {
    const targets = [{ host: 'h2', mac: 'ba' }];
    const known = new Map([...tables(entry('ba', 1, 5)), ['br1', [entry('ba', 1, 0)]]]);
    const from = (change: Partial<SwitchPort>) =>
      chooseMarkerPaths([port('tap0', 'aa', change)], known, targets).map(({ vlan }) => vlan);
    expect(from({ tag: 5 })).toEqual([null]);
    expect(from({ tag: 6 })).toEqual([]);
    expect(from({})).toEqual([5]);
    expect(from({ bridge: 'br1' })).toEqual([null]);
    expect(chooseMarkerPaths([{ tap: 'tap0', mac: 'aa', switchPort: null }], known, targets)).toEqual([]);
  });

  it('begin at one port of a segment only if there were too many else', () => {
    const targets = Array.from({ length: 100 }, (_, host) => ({ host: `h${host}`, mac: `b${host}` }));
    const known = tables(...targets.map(({ mac }) => entry(mac)));
    const ports = (count: number) =>
      Array.from({ length: count }, (_, place) => port(`tap${place}`, `a${place}`, { tag: place % 2 }));
    const both = tables(...known.get('br0')!, ...targets.map(({ mac }) => entry(mac, 1, 1)));
    expect(chooseMarkerPaths(ports(20), both, targets)).toHaveLength(pathsMax);
    const few = chooseMarkerPaths(ports(21), both, targets);
    expect([...new Set(few.map(({ tap }) => tap))]).toEqual(['tap0', 'tap1']);
    expect(few).toHaveLength(200);
  });
});

describe('the tag with which a port gets into a VLAN', () => {
  // ovs-vswitchd.conf.db(5), table Port, column vlan_mode.
  it.each<[Partial<SwitchPort>, number, number | null | undefined]>([
    [{}, 0, null],
    [{}, 5, 5],
    [{ trunks: [5, 6] }, 5, 5],
    [{ trunks: [5, 6] }, 7, undefined],
    [{ tag: 5 }, 5, null],
    [{ tag: 5 }, 6, undefined],
    [{ vlanMode: 'native-untagged', tag: 5 }, 5, null],
    [{ vlanMode: 'native-tagged', tag: 5 }, 6, 6],
    [{ vlanMode: 'dot1q-tunnel', tag: 5 }, 5, null],
    [{ vlanMode: 'dot1q-tunnel', tag: 5 }, 6, undefined],
    [{ vlanMode: 'trunk', tag: 5 }, 5, 5],
  ])('of a port with %j into VLAN %i is %j', (change, vlan, tag) => {
    expect(tagInto({ ...plain, ...change }, vlan)).toBe(tag);
  });
});
