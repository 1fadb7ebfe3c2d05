import { describe, expect, it } from 'vitest';

import { bridgesOf, changesBetween, SwitchTables, undeclaredPorts } from './watch.ts';
import type { OvsdbRow } from '../../ovsdb/index.ts';

const none = ['set', []] as const;
const port = (name: string, changes: OvsdbRow = {}): OvsdbRow => ({
  name,
  interfaces: ['uuid', `i-${name}`],
  tag: none,
  trunks: none,
  vlan_mode: none,
  qos: none,
  ...changes,
});
const iface = (name: string, changes: OvsdbRow = {}): OvsdbRow => ({
  name,
  type: '',
  options: ['map', []],
  ofport: 1,
  ingress_policing_rate: 0,
  ...changes,
});
const bridge = (name: string, ports: readonly string[]): OvsdbRow => ({
  name,
  datapath_type: 'netdev',
  ports: ['set', ports.map((each) => ['uuid', `p-${each}`] as const)],
});

function tables(): SwitchTables {
  const made = new SwitchTables();
  made.apply({
    Bridge: {
      b0: { new: bridge('br0', ['tap0', 'eth1', 'vx0', 'br0']) },
      b1: { new: bridge('br1', ['eth2']) },
    },
    Port: Object.fromEntries(['tap0', 'eth1', 'vx0', 'br0', 'eth2'].map((n) => [`p-${n}`, { new: port(n) }])),
    Interface: {
      ...Object.fromEntries(['tap0', 'eth1', 'eth2'].map((n) => [`i-${n}`, { new: iface(n) }])),
      'i-vx0': { new: iface('vx0', { type: 'vxlan' }) },
      'i-br0': { new: iface('br0', { type: 'internal' }) },
    },
  });
  return made;
}

describe('the watch over the switches', () => {
  const ours = { taps: new Set(['tap0']), external: new Set<string>() };

  /** What is told after an update. */
  function changesAfter(updates: Parameters<SwitchTables['apply']>[0]): string[] {
    const watched = tables();
    const before = watched.interfaces();
    watched.apply(updates);
    return [...changesBetween(before, watched.interfaces(), bridgesOf(before, ours)).values()];
  }

  it('names ordinary ports that nobody has told of, on bridges of the experiment only', () => {
    expect(undeclaredPorts(tables().interfaces(), ours)).toEqual(['eth1']);
    expect(undeclaredPorts(tables().interfaces(), { ...ours, external: new Set(['eth1']) })).toEqual([]);
  });

  it('tells of a port that is added, removed or moved', () => {
    const added = {
      Bridge: { b0: { new: bridge('br0', ['tap0', 'eth1', 'vx0', 'br0', 'new0']) } },
      Port: { 'p-new0': { new: port('new0') } },
      Interface: { 'i-new0': { new: iface('new0') } },
    };
    expect(changesAfter(added)).toEqual(['new0 was added to br0']);
    const removed = { Bridge: { b0: { new: bridge('br0', ['tap0', 'vx0', 'br0']) } } };
    expect(changesAfter(removed)).toEqual(['eth1 was removed from br0']);
    const moved = {
      Bridge: {
        b0: { new: bridge('br0', ['tap0', 'vx0', 'br0']) },
        b1: { new: bridge('br1', ['eth1', 'eth2']) },
      },
    };
    expect(changesAfter(moved)).toEqual(['eth1 was moved from br0 to br1']);
  });

  it('tells of other VLANs, QoS and options', () => {
    expect(changesAfter({ Port: { 'p-eth1': { new: port('eth1', { tag: 5 }) } } })).toEqual([
      'eth1 was given other VLANs, QoS or options',
    ]);
    const shaped = {
      Port: { 'p-tap0': { new: port('tap0', { qos: ['uuid', 'q0'] }) } },
      QoS: {
        q0: { new: { type: 'linux-htb', other_config: ['map', []] as const, queues: ['map', []] as const } },
      },
    };
    expect(changesAfter(shaped)).toEqual(['tap0 was given other VLANs, QoS or options']);
  });

  it('tells of a device that is gone, and not of one that came', () => {
    const gone = { Interface: { 'i-tap0': { new: iface('tap0', { ofport: -1 }) } } };
    expect(changesAfter(gone)).toEqual(['tap0 has lost its device']);
    const watched = tables();
    watched.apply(gone);
    const before = watched.interfaces();
    watched.apply({ Interface: { 'i-tap0': { new: iface('tap0', { ofport: 7 }) } } });
    expect(changesBetween(before, watched.interfaces(), bridgesOf(before, ours)).size).toBe(0);
  });

  it('leaves the bridges of others to them', () => {
    expect(changesAfter({ Bridge: { b1: { old: bridge('br1', ['eth2']) } } })).toEqual([]);
    expect(changesAfter({ Port: { 'p-eth2': { new: port('eth2', { tag: 9 }) } } })).toEqual([]);
  });
});
