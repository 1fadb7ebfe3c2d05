import { describe, expect, it } from 'vitest';

import { placedDevice } from '../../src/agent/fork/names.ts';
import { placeManifest } from '../../src/agent/fork/place-manifest.ts';
import type { HostManifest } from '../../src/store/manifest.ts';
import type { StoredBridge, StoredInterface, StoredPort } from '../../src/store/stored-switches.ts';

const storedInFull = { form: 'full' as const, identities: null, places: null, layers: [] };

const file = { file: 'f', bytes: 1, sha256: '00' };
const placement = { fork: 12, tunnelKeys: { 0: 900, 100: 901, 101: 902 } };
const directory = '/forks/f12';

function iface(name: string, type = 'system', options: Record<string, string> = {}): StoredInterface {
  const pairs = Object.entries(options);
  return {
    name,
    type,
    ofport: 3,
    columns: pairs.length === 0 ? { type } : { type, options: ['map', pairs] as never },
  };
}

const port = (one: StoredInterface): StoredPort => ({
  name: one.name,
  columns: { tag: 5 },
  interfaces: [one],
  qos: null,
});

function bridge(
  name: string,
  interfaces: StoredInterface[],
  given: Partial<StoredBridge> = {},
): StoredBridge {
  return {
    ...{ name, columns: {}, localMac: null, localUp: true, controllers: [], openFlow: null, macTable: null },
    ports: [iface(name, 'internal'), ...interfaces].map(port),
    ...given,
  };
}

function manifest(bridges: StoredBridge[] | null, tap = 'tap0'): HostManifest {
  const switchPort = { bridge: 'br0', port: tap, vlanMode: null, tag: null, trunks: [] };
  const nic = {
    ...{ netdev: 'net0', model: 'virtio-net-pci', mac: '02:00:00:00:00:01', tap, ifindex: 4 },
    ...{ vnetHdr: false, queues: 1, vhost: false, mtu: 1500, switchPort },
  };
  return {
    ...{ format: 'staghorn-snapshot', version: 3, snapshot: '20261122T151200Z-3f9ac1', experiment: 'lab' },
    createdAt: '2026-11-22T15:12:00.000Z',
    host: { hostname: 'h', kernel: 'k', staghorn: 's' },
    vms: [
      {
        ...{ name: 'web', exe: '/usr/bin/qemu-system-x86_64', cwd: '/', uid: 0, gid: 0 },
        args: ['-name', 'web', '-netdev', `tap,id=net0,ifname=${tap}`, '-qmp', 'unix:/run/web.qmp,server=on'],
        ...{ qmpSocket: '/run/web.qmp', qemuVersion: '7.2.22', machineType: 'pc-i440fx-7.2' },
        ...{ accelerator: 'tcg', method: 'fork', running: true, stoppedAtNs: 1n, resumedAtNs: 2n },
        nics: [nic],
        ram: { file: 'web.ram', bytes: 1, storedBytes: 1, chunkBytes: 1, chunkCrc32c: '', ...storedInFull },
        ...{ state: file, blocks: [], memory: [], disks: [], hiddenNs: 0n },
      },
    ],
    frames: { ...file, count: 0 },
    switches: bridges && {
      bridges,
      qdiscs: [{ tap, qdiscs: [], classes: [] }],
    },
    needs: [],
  };
}

const place = (bridges: StoredBridge[] | null, tap?: string) =>
  placeManifest(manifest(bridges, tap), placement, directory);

function interfacesOf(bridges: StoredBridge[]) {
  const { switches } = place(bridges).manifest;
  return switches!.bridges.flatMap(({ ports }) => ports.flatMap(({ interfaces }) => interfaces));
}

describe('the manifest of a fork', () => {
  it('names VMs, taps, bridges and sockets anew, and the files of the snapshot as before', () => {
    const { manifest: placed, warnings } = place([bridge('br0', [iface('tap0')])]);
    const [vm] = placed.vms;
    expect(vm).toMatchObject({ name: 'web.f12', qmpSocket: '/forks/f12/web/web.qmp' });
    expect(vm!.args).toContain('unix:/forks/f12/web/web.qmp,server=on');
    expect(vm!.nics[0]).toMatchObject({
      tap: 'tap0.f12',
      mac: '02:00:00:00:00:01',
      switchPort: { bridge: 'br0.f12', port: 'tap0.f12' },
    });
    expect(vm!.ram.file).toBe('web.ram');
    const [own] = placed.switches!.bridges;
    expect(own!.name).toBe('br0.f12');
    expect(own!.ports.map(({ name }) => name)).toEqual(['br0.f12', 'tap0.f12']);
    expect(own!.ports[1]).toMatchObject({ columns: { tag: 5 }, interfaces: [{ ofport: 3 }] });
    expect(placed.switches!.qdiscs[0]!.tap).toBe('tap0.f12');
    expect(warnings).toEqual([]);
  });

  it('can be placed again: a fork of a fork is beside both', () => {
    const once = place([bridge('br0', [iface('tap0')])]).manifest;
    const twice = placeManifest(once, { ...placement, fork: 13 }, '/forks/f13').manifest;
    expect(twice.vms[0]).toMatchObject({ name: 'web.f12.f13', qmpSocket: '/forks/f13/web.f12/web.qmp' });
    expect(twice.vms[0]!.nics[0]!.tap).toBe('tap0.f12.f13');
  });

  it('gives every tunnel a key of its own, with or without one before', () => {
    const [, , keyed, keyless, both] = interfacesOf([
      bridge('br0', [
        iface('tap0'),
        iface('vx0', 'vxlan', { remote_ip: '10.0.0.2', key: '100' }),
        iface('gre0', 'gre', { remote_ip: '10.0.0.2' }),
        iface('gn0', 'geneve', { remote_ip: '10.0.0.2', in_key: '0x65', out_key: '100' }),
      ]),
    ]);
    expect(keyed!.columns['options']).toEqual([
      'map',
      [
        ['remote_ip', '10.0.0.2'],
        ['key', '901'],
      ],
    ]);
    expect(keyless!.columns['options']).toEqual([
      'map',
      [
        ['remote_ip', '10.0.0.2'],
        ['key', '900'],
      ],
    ]);
    expect(both!.columns['options']).toEqual([
      'map',
      [
        ['remote_ip', '10.0.0.2'],
        ['in_key', '902'],
        ['out_key', '901'],
      ],
    ]);
  });

  it('is refused where flows set the keys of a tunnel', () => {
    const tunnel = iface('vx0', 'vxlan', { remote_ip: '10.0.0.2', key: 'flow' });
    expect(() => place([bridge('br0', [iface('tap0'), tunnel])])).toThrow(/flows set the keys of tunnel vx0/);
  });

  it('leaves out what leads outside, and says so', () => {
    const outside = [iface('eth1'), iface('host0', 'internal'), iface('p0', 'patch', { peer: 'far' })];
    const macTable = [
      { interface: 'tap0', vlan: 0, mac: '02:00:00:00:00:01', ageS: 1 },
      { interface: 'eth1', vlan: 0, mac: '02:00:00:00:00:02', ageS: 1 },
    ];
    const { manifest: placed, warnings } = place([bridge('br0', [iface('tap0'), ...outside], { macTable })]);
    expect(placed.switches!.bridges[0]!.ports.map(({ name }) => name)).toEqual(['br0.f12', 'tap0.f12']);
    expect(placed.switches!.bridges[0]!.macTable).toEqual([{ ...macTable[0], interface: 'tap0.f12' }]);
    expect(warnings).toEqual(
      ['eth1', 'host0', 'p0'].map(
        (name) => `bridge br0: port ${name} leads out of the experiment; a fork has none`,
      ),
    );
  });

  it('joins its bridges to each other as the original’s are joined', () => {
    const found = interfacesOf([
      bridge('br0', [iface('tap0'), iface('p0', 'patch', { peer: 'p1' })]),
      bridge('br1', [iface('p1', 'patch', { peer: 'p0' })]),
    ]);
    const patches = found.filter(({ type }) => type === 'patch');
    expect(patches.map(({ name, columns }) => [name, columns['options']])).toEqual([
      ['p0.f12', ['map', [['peer', 'p1.f12']]]],
      ['p1.f12', ['map', [['peer', 'p0.f12']]]],
    ]);
  });

  it('is refused for a bridge that the snapshot does not describe', () => {
    expect(() => place(null)).toThrow(/says nothing of how bridge br0 was set/);
  });
});

describe('the name of a device in a fork', () => {
  it('fits the kernel, and tells two long names apart', () => {
    const names = ['vnet-very-long1', 'vnet-very-long2', 'tap0'].map((name) => placedDevice(name, 1234));
    expect(names.every((name) => name.length <= 15 && name.endsWith('.f1234'))).toBe(true);
    expect(new Set(names).size).toBe(3);
  });
});
