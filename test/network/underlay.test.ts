import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readLinks } from '../../src/native/netlink.ts';
import { routeDevice } from '../../src/native/routes.ts';
import { stackOf } from '../../src/network/switches/underlay.ts';
import { NetworkLab } from './network-lab.ts';

let lab: NetworkLab;
beforeEach(() => {
  lab = NetworkLab.enter();
});
afterEach(() => {
  lab.leave();
});

it('is the device that the route leads to, with the ports of its bridge', async () => {
  const [near, far] = await lab.veth();
  const [port] = await lab.veth();
  lab.elsewhere([far], () => lab.ip('link', 'set', far, 'up'));
  lab.ip('link', 'add', 'wire', 'type', 'bridge');
  lab.ip('link', 'set', 'wire', 'up');
  lab.ip('link', 'set', port, 'master', 'wire');
  lab.ip('address', 'add', '10.78.0.1/24', 'dev', 'wire');
  lab.ip('address', 'add', '10.79.0.1/24', 'dev', near);
  expect(routeDevice('10.78.0.2')).toBe(lab.ifindex('wire'));
  expect(routeDevice('10.79.0.2')).toBe(lab.ifindex(near));
  expect(routeDevice('10.80.0.2')).toBeNull();
  const devices = stackOf([routeDevice('10.78.0.2')!], readLinks());
  expect(devices).toEqual(expect.arrayContaining([lab.ifindex('wire'), lab.ifindex(port)]));
  expect(devices).not.toContain(lab.ifindex(near));
});

it('is found for IPv6 as well, however the address is written', () => {
  // The namespace is the test's own.
  for (const device of ['all', 'lo']) writeFileSync(`/proc/sys/net/ipv6/conf/${device}/disable_ipv6`, '0');
  lab.ip('link', 'set', 'lo', 'up');
  lab.ip('-6', 'route', 'add', 'fd00:77::/64', 'dev', 'lo');
  for (const address of ['fd00:77::2', 'fd00:77:0:0:0:0:0:2', 'fd00:77::10.0.0.2'])
    expect(routeDevice(address)).toBe(lab.ifindex('lo'));
  expect(routeDevice('fd00:78::2')).toBeNull();
  expect(() => routeDevice('somewhere')).toThrow(RangeError);
});
