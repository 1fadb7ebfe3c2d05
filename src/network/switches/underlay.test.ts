import { expect, it } from 'vitest';
import type { Link } from '../../native/netlink.ts';
import { stackOf } from './underlay.ts';

const link = (ifindex: number, place: Partial<Link> = {}): Link => ({
  ...{ ifindex, name: `dev${ifindex}`, kind: '', up: true, carrier: true, mtu: 1500, txQueueLen: 1000 },
  ...{ gsoMaxSize: 65536, mac: '', below: null, master: null },
  ...place,
});

it('finds all devices that packets pass on their way down, once each', () => {
  // A VLAN on a bond of two cards; a cable whose ends name each other.
  const links = [link(1, { below: 2 }), link(2), link(3, { master: 2 }), link(4, { master: 2 })];
  const cable = [link(5, { below: 6 }), link(6, { below: 5 }), link(7)];
  expect(stackOf([1], [...links, ...cable]).sort()).toEqual([1, 2, 3, 4]);
  expect(stackOf([5], [...links, ...cable]).sort()).toEqual([5, 6]);
  expect(stackOf([], links)).toEqual([]);
});
