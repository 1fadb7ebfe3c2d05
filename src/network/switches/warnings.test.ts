import { describe, expect, it } from 'vitest';
import type { BridgeConfig } from './config.ts';
import { switchWarnings } from './warnings.ts';

const plain: BridgeConfig = {
  name: 'br0',
  columns: {},
  ports: [],
  localMac: null,
  controllers: [],
  mirrors: [],
  extras: [],
};
const nothing = { flows: 'priority=0 actions=NORMAL\n', groups: '', meters: '' };
const withFlow = (flow: string) => switchWarnings(plain, { ...nothing, flows: `${flow}\n` });

describe('what a snapshot does not keep of a bridge', () => {
  it('is nothing of a plain one', () => {
    expect(switchWarnings(plain, nothing)).toEqual([]);
    expect(withFlow('priority=9,ip,nw_src=10.0.0.0/8 actions=output:1,set_queue:3')).toEqual([]);
  });

  it.each([
    ['ct_state=-trk,ip actions=ct(table=4)', /connection tracking/],
    ['arp actions=learn(table=2,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]),NORMAL', /learn other flows/],
    ['table=3, idle_timeout=100, ip actions=drop', /time-outs/],
    ['hard_timeout=7, ip actions=drop', /time-outs/],
    ['tun_metadata0=0x1 actions=drop', /tlv-map/],
  ])('is told of flow "%s"', (flow, remark) => {
    expect(withFlow(flow)).toEqual([expect.stringMatching(remark)]);
  });

  it('is told of everything that hangs on it', () => {
    const loaded: BridgeConfig = {
      ...plain,
      columns: { mcast_snooping_enable: true, rstp_enable: true },
      controllers: ['tcp:192.0.2.1:6653'],
      mirrors: ['m0'],
      extras: ['netflow', 'auto_attach'],
    };
    expect(switchWarnings(loaded, { ...nothing, meters: 'meter=1 kbps bands=type=drop rate=9\n' })).toEqual([
      expect.stringMatching(/^bridge br0: controllers \(tcp:192\.0\.2\.1:6653\) may change/),
      expect.stringMatching(/mirrors \(m0\)/),
      expect.stringMatching(/multicast snooping/),
      expect.stringMatching(/spanning tree/),
      expect.stringMatching(/auto attach/),
      expect.stringMatching(/netflow/),
      expect.stringMatching(/meters/),
    ]);
  });
});
