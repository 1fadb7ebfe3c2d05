import { describe, expect, it } from 'vitest';

import { dropsBetween, parseSwitchSockets, queueDrops, sumOfDrops } from './network-drops.ts';

const memory = (drops: number) => `skmem:(r832,rb212992,t0,tb212992,f0,w0,o176,bl0,d${drops})`;
const socket = (device: string, owner: string, drops: number, others = '') =>
  `p_raw UNCONN 832    0     *:${device}     *     users:(("${owner}",pid=307,fd=38)${others}) ${memory(drops)}  `;

describe('drops of a network itself', () => {
  it('are those of the sockets of its switch, and of nobody else', () => {
    const text = [
      'Netid State  Recv-Q Send-Q Local Address:Port     Peer Address:PortProcess      ',
      socket('underlay', 'ovs-vswitchd', 43),
      socket('tap0-0', 'ovs-vswitchd', 0),
      socket('tap0-0', 'node', 7),
      socket('tap1-0', 'ovs-vswitchd', 2, ',("MainThread",pid=9,fd=5)'),
    ].join('\n');
    const socketOfSwitch = (device: string, dropped: number) => {
      return { device, fd: '38', bufferBytes: 212992, dropped };
    };
    expect(parseSwitchSockets(text)).toEqual([
      socketOfSwitch('underlay', 43),
      socketOfSwitch('tap0-0', 0),
      socketOfSwitch('tap1-0', 2),
    ]);
  });

  it('are those of queueing disciplines, but not of filters', () => {
    const text = `qdisc tbf 8001: dev tap0-0 root refcnt 2 rate 10Mbit burst 1600b lat 798ms
 Sent 100 bytes 2 pkt (dropped 5, overlimits 0 requeues 0)
 backlog 0b 0p requeues 0
qdisc clsact ffff: dev port1 parent ffff:fff1
 Sent 0 bytes 0 pkt (dropped 9, overlimits 0 requeues 0)
 backlog 0b 0p requeues 0
`;
    expect([...queueDrops(text)]).toEqual([['tbf 8001: of tap0-0', 5]]);
  });

  it('count from one reading to the next, as far as the counters lived', () => {
    const before = new Map([
      ['a', 2],
      ['gone', 5],
      ['made anew', 9],
    ]);
    const after = new Map([
      ['a', 3],
      ['made anew', 1],
      ['new', 4],
    ]);
    const drops = dropsBetween(before, after);
    expect([...drops]).toEqual([
      ['a', 1],
      ['new', 4],
    ]);
    expect(sumOfDrops(drops)).toBe(5);
  });
});
