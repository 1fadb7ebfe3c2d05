import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sendFrames } from '../../src/native/gate.ts';
import { parseMacTable, readMacTable, readMacTables } from '../../src/network/switches/mac-table.ts';
import { UnixctlClient } from '../../src/unixctl/index.ts';
import { NetworkLab, numberedFrame } from './network-lab.ts';
import { OpenVSwitch } from './open-vswitch.ts';

describe('the MAC table of a bridge', () => {
  let lab: NetworkLab;
  let ovs: OpenVSwitch;

  beforeEach(async () => {
    lab = NetworkLab.enter();
    ovs = await OpenVSwitch.start();
  });

  afterEach(async () => {
    await ovs.stop();
    lab.leave();
  });

  it('tells port, VLAN, MAC and age of what was learnt, and null for the age of what was set', async () => {
    const [near, far] = await lab.veth();
    const tap = lab.tap();
    ovs.bridge('br0', { [far]: ['tag=5'], [tap.name]: [] });
    ovs.appctl('fdb/add', 'br0', tap.name, '7', '02:00:00:00:00:07');
    sendFrames(lab.ifindex(near), [numberedFrame(1)]);
    await expect
      .poll(() => readMacTable('br0'))
      .toContainEqual({
        port: ovs.ofport(far),
        vlan: 5,
        mac: '02:00:00:00:ca:fe',
        ageS: expect.any(Number) as number,
      });
    expect(await readMacTable('br0')).toContainEqual({
      port: ovs.ofport(tap.name),
      vlan: 7,
      mac: '02:00:00:00:00:07',
      ageS: null,
    });
  });

  it('is read of several bridges at once, and may be empty', async () => {
    ovs.bridge('br0');
    ovs.bridge('br1');
    ovs.appctl('fdb/add', 'br1', 'br1', '0', '02:00:00:00:00:01');
    const tables = await readMacTables(['br0', 'br1']);
    expect(tables.get('br0')).toEqual([]);
    expect(tables.get('br1')).toEqual([{ port: 'LOCAL', vlan: 0, mac: '02:00:00:00:00:01', ageS: null }]);
  });

  it('fails in words when there is no such bridge, and when Open vSwitch does not run', async () => {
    await expect(readMacTable('nowhere')).rejects.toMatchObject({
      code: 'host-unfit',
      message: expect.stringContaining('no such bridge') as string,
    });
    await ovs.stop();
    await expect(readMacTable('br0')).rejects.toMatchObject({ code: 'host-unfit' });
  });

  it('is not guessed from a text of another form', () => {
    const text = ' port  VLAN  MAC                Age\n 1 none 02:00:00:00:00:01 3\n';
    expect(() => parseMacTable(text)).toThrow(/line of another form/);
  });

  it('comes over a connection that carries other commands too', async () => {
    const client = await UnixctlClient.connect();
    expect(await client.run('version')).toMatch(/Open vSwitch/);
    await expect(client.run('no/such')).rejects.toMatchObject({ code: 'command-failed' });
    await client.close();
  });
});
