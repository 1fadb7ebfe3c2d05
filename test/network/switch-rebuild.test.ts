import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { restoreSwitches } from '../../src/agent/restore/switch-restore.ts';
import { FlowMemory } from '../../src/network/switches/flow-memory.ts';
import { readBridges, bridgesAround } from '../../src/network/switches/config.ts';
import { readOpenFlow } from '../../src/network/switches/openflow.ts';
import { switchWarnings } from '../../src/network/switches/warnings.ts';
import { SnapshotStore, type PartialSnapshot } from '../../src/store/snapshot-directory.ts';
import type { StoredSwitches } from '../../src/store/stored-switches.ts';
import { NetworkLab } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';
import { OpenVSwitch } from './open-vswitch.ts';

const signal = new AbortController().signal;
const flows = [
  'cookie=0x5,table=0,priority=7,ip,nw_src=10.0.0.0/8,actions=meter:1,group:2',
  'table=0,priority=0,actions=NORMAL',
  'table=1,priority=9,dl_vlan=7,actions=strip_vlan,output:1',
].join('\n');

describe('the switches of a snapshot', () => {
  let lab: NetworkLab;
  let ovs: OpenVSwitch;
  let taps: LabTap[];
  let root: string;
  let directory: PartialSnapshot;

  beforeEach(async () => {
    lab = NetworkLab.enter();
    root = await mkdtemp(join(tmpdir(), `staghorn-switches-${process.pid}-`));
    directory = await new SnapshotStore(root).create('20261122T120000Z-abcdef');
    ovs = await OpenVSwitch.start();
    taps = [lab.tap(), lab.tap()];
    makeSwitches();
  });

  afterEach(async () => {
    await ovs.stop();
    lab.leave();
    await rm(root, { recursive: true });
  });

  /** Two bridges joined by a patch, with a tunnel, QoS with queues that two ports share, and flows of every kind. */
  function makeSwitches(): void {
    const [one, two] = taps as [LabTap, LabTap];
    ovs.bridge('br0', { [one.name]: ['tag=5', 'vlan_mode=native-untagged', 'trunks=5,7'], [two.name]: [] });
    ovs.bridge('br1');
    const add = (bridge: string, port: string, type: string, ...options: string[]) =>
      ovs.vsctl('add-port', bridge, port, '--', 'set', 'interface', port, `type=${type}`, ...options);
    add('br0', 'to1', 'patch', 'options:peer=to0');
    add('br1', 'to0', 'patch', 'options:peer=to1');
    add('br1', 'vx0', 'vxlan', 'options:remote_ip=192.0.2.1', 'options:key=flow', 'options:tos=inherit');
    ovs.vsctl(
      ...['set', 'port', one.name, 'qos=@q', '--', 'set', 'port', two.name, 'qos=@q'],
      ...[
        '--',
        '--id=@q',
        'create',
        'qos',
        'type=linux-htb',
        'other_config:max-rate=10000000',
        'queues:3=@c',
      ],
      ...['--', '--id=@c', 'create', 'queue', 'other_config:min-rate=1000000', 'dscp=10'],
    );
    ovs.vsctl('set', 'interface', two.name, 'ingress_policing_rate=5000', 'ofport_request=77');
    ovs.vsctl(
      'set',
      'bridge',
      'br0',
      'fail_mode=secure',
      'other_config:mac-aging-time=99',
      'external_ids:a=b',
    );
    lab.ip('link', 'set', 'br0', 'up');
    ovs.ofctl(
      '-O',
      'OpenFlow15',
      'add-meter',
      'br0',
      'meter=1 kbps burst stats bands=type=drop rate=1000 burst_size=9',
    );
    ovs.ofctl('-O', 'OpenFlow15', 'add-group', 'br0', 'group_id=1,type=all,bucket=output:1');
    ovs.ofctl('-O', 'OpenFlow15', 'add-group', 'br0', 'group_id=2,type=select,bucket=weight:3,group:1');
    for (const flow of flows.split('\n')) ovs.ofctl('-O', 'OpenFlow15', 'add-flow', 'br0', flow);
  }

  async function save(): Promise<StoredSwitches> {
    const configs = bridgesAround(await readBridges(), new Set([taps[0]!.name]));
    const bridges = await Promise.all(
      configs.map(async ({ mirrors: _m, extras: _e, ports, controllers, ...config }) => {
        const tables = await readOpenFlow(config.name);
        const write = (what: keyof typeof tables) =>
          directory.write(`${config.name}.${what}`, Buffer.from(tables[what]));
        return {
          ...{ ...config, ports: [...ports], controllers: [...controllers] },
          localUp: config.name === 'br0',
          openFlow: {
            flows: await write('flows'),
            groups: await write('groups'),
            meters: await write('meters'),
          },
          macTable: null,
        };
      }),
    );
    return { bridges, qdiscs: [] };
  }

  const restore = (stored: StoredSwitches) =>
    restoreSwitches(stored, {
      directory: directory.path,
      madeTaps: new Set(),
      flows: new FlowMemory(),
      signal,
    });

  /** Everything that the switches are set to; rows of QoS may be other rows of the same content. */
  async function settings(): Promise<unknown> {
    const bridges = (await readBridges()).sort((left, right) => (left.name < right.name ? -1 : 1));
    const own = bridges.map(({ ports, columns, localMac, ...bridge }) => ({
      ...bridge,
      localMac,
      columns: { ...columns, other_config: undefined },
      aging: ovs.vsctl('--if-exists', 'get', 'bridge', bridge.name, 'other_config:mac-aging-time'),
      ports: ports
        .map((port) => ({
          ...port,
          qos: port.qos === null ? null : { ...port.qos, uuid: null },
          interfaces: port.interfaces.map((iface) => ({
            ...iface,
            columns: { ...iface.columns, ofport_request: null },
          })),
        }))
        .sort((left, right) => (left.name < right.name ? -1 : 1)),
    }));
    return { own, openFlow: await Promise.all(bridges.map(({ name }) => readOpenFlow(name))) };
  }

  it('are those of its taps and what patch ports join to them, and need no warning', async () => {
    ovs.bridge('elsewhere');
    const around = bridgesAround(await readBridges(), new Set([taps[0]!.name]));
    expect(around.map(({ name }) => name).sort()).toEqual(['br0', 'br1']);
    expect(around.flatMap((bridge) => switchWarnings(bridge, null))).toEqual([]);
  });

  it('are left alone where they are as they were', async () => {
    const stored = await save();
    const before = ovs.vsctl('get', 'Open_vSwitch', '.', 'next_cfg');
    expect(await restore(stored)).toEqual([]);
    expect(ovs.vsctl('get', 'Open_vSwitch', '.', 'next_cfg')).toBe(before);
  });

  it('come back whole where they are gone: VLANs, QoS, tunnels, patches, port numbers, flows, groups, meters', async () => {
    const stored = await save();
    const before = await settings();
    ovs.vsctl('del-br', 'br0', '--', 'del-br', 'br1');
    ovs.vsctl('--all', 'destroy', 'qos', '--', '--all', 'destroy', 'queue');
    const warnings = await restore(stored);
    expect(warnings.sort()).toEqual([
      expect.stringMatching(/^bridge br0 was gone and has been made again/),
      expect.stringMatching(/^bridge br1 was gone and has been made again/),
    ]);
    expect(await settings()).toEqual(before);
    expect(lab.ip('link', 'show', 'br0')).toMatch(/,UP/);
    const [one, two] = taps as [LabTap, LabTap];
    expect(ovs.vsctl('get', 'port', one.name, 'qos')).toBe(ovs.vsctl('get', 'port', two.name, 'qos'));
  });

  it('get back a port that is gone, with the QoS that another port still has', async () => {
    const stored = await save();
    const before = await settings();
    const [one, two] = taps as [LabTap, LabTap];
    ovs.vsctl('del-port', one.name);
    expect(await restore(stored)).toEqual([]);
    expect(await settings()).toEqual(before);
    expect(ovs.vsctl('get', 'port', one.name, 'qos')).toBe(ovs.vsctl('get', 'port', two.name, 'qos'));
  });

  it('get back their flows if they have only those of a new bridge', async () => {
    const stored = await save();
    const before = await readOpenFlow('br0');
    for (const what of ['del-flows', 'del-groups', 'del-meters']) ovs.ofctl('-O', 'OpenFlow15', what, 'br0');
    expect(await restore(stored)).toEqual([expect.stringMatching(/^bridge br0 had lost its flows/)]);
    expect(await readOpenFlow('br0')).toEqual(before);
  });

  it('keep flows and settings that somebody has changed since, with a warning', async () => {
    const stored = await save();
    ovs.ofctl('-O', 'OpenFlow15', 'add-flow', 'br0', 'priority=99,arp,actions=drop');
    ovs.vsctl('set', 'port', taps[0]!.name, 'tag=7');
    expect(await restore(stored)).toEqual([
      expect.stringMatching(/port tap\d+ is set otherwise than in the snapshot; it is left so/),
      expect.stringMatching(/its flows, groups or meters are not those of the snapshot/),
    ]);
    expect(ovs.vsctl('get', 'port', taps[0]!.name, 'tag').trim()).toBe('7');
    expect((await readOpenFlow('br0')).flows).toContain('priority=99,arp actions=drop');
  });

  it('leave out a port whose device is gone, and name a controller that is not set up', async () => {
    ovs.vsctl('set-controller', 'br0', 'tcp:127.0.0.1:1');
    const stored = await save();
    const gone = taps[1]!.name;
    ovs.vsctl('del-br', 'br0');
    lab.remove(gone);
    expect(await restore(stored)).toEqual([
      expect.stringMatching(/br0 was gone .* without its controllers tcp:127\.0\.0\.1:1$/),
      expect.stringMatching(new RegExp(`port ${gone} is gone, and its device too`)),
    ]);
    expect(ovs.vsctl('get-controller', 'br0')).toBe('');
  });
});
