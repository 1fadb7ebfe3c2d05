import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readOpenFlow } from '../../src/network/switches/openflow.ts';
import { OpenFlowMemory } from '../../src/network/switches/openflow-memory.ts';
import { NetworkLab } from './network-lab.ts';
import { OpenVSwitch } from './open-vswitch.ts';

const openFlow = ['-O', 'OpenFlow15'];

describe('what a bridge does with frames', () => {
  let lab: NetworkLab;
  let ovs: OpenVSwitch;
  let memory: OpenFlowMemory;

  beforeEach(async () => {
    lab = NetworkLab.enter();
    ovs = await OpenVSwitch.start();
    memory = new OpenFlowMemory();
    ovs.bridge('br0');
    ovs.ofctl(...openFlow, 'add-meter', 'br0', 'meter=1 kbps bands=type=drop rate=1000');
    ovs.ofctl(...openFlow, 'add-group', 'br0', 'group_id=1,type=all,bucket=output:1');
    ovs.ofctl(...openFlow, 'add-flow', 'br0', 'cookie=0x5,priority=7,ip,nw_src=10.0.0.0/8,actions=group:1');
  });

  afterEach(async () => {
    vi.unstubAllEnvs();
    await ovs.stop();
    lab.leave();
  });

  /** What is told where no ovs-ofctl can be started. */
  async function remembered() {
    vi.stubEnv('PATH', '/nowhere');
    try {
      return await memory.read('br0');
    } finally {
      vi.unstubAllEnvs();
    }
  }

  it('is told without ovs-ofctl as long as it is the same, whatever its counters say', async () => {
    await expect(remembered()).rejects.toMatchObject({ code: 'network-unfit' });
    const told = await memory.read('br0');
    expect(told).toEqual(await readOpenFlow('br0'));
    ovs.appctl('ofproto/trace', 'br0', 'in_port=LOCAL,ip,nw_src=10.1.1.1', '-generate');
    expect(await remembered()).toEqual(told);
  });

  it.each([
    ['a flow', ['add-flow', 'br0', 'priority=8,arp,actions=drop']],
    ['a cookie', ['add-flow', 'br0', 'cookie=0x6,priority=7,ip,nw_src=10.0.0.0/8,actions=group:1']],
    ['a group', ['mod-group', 'br0', 'group_id=1,type=all,bucket=output:2']],
    ['a meter', ['mod-meter', 'br0', 'meter=1 kbps bands=type=drop rate=2000']],
  ])('is read anew when %s has changed', async (_what, change) => {
    const before = await memory.read('br0');
    ovs.ofctl(...openFlow, ...change);
    await expect(remembered()).rejects.toMatchObject({ code: 'network-unfit' });
    const after = await memory.read('br0');
    expect(after).not.toEqual(before);
    expect(after).toEqual(await readOpenFlow('br0'));
    expect(await remembered()).toEqual(after);
  });

  it('is told of a bridge that speaks an older OpenFlow only', async () => {
    ovs.ofctl('del-groups', 'br0', ...openFlow);
    ovs.vsctl('set', 'bridge', 'br0', 'protocols=OpenFlow10');
    expect((await memory.read('br0')).flows).toContain('priority=0 actions=NORMAL');
  });
});
