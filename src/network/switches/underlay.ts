import { isIP } from 'node:net';
import type { Link } from '../../native/netlink.ts';
import { routeDevice } from '../../native/routes.ts';
import type { OvsBridge } from '../../ovsdb/index.ts';

/** Devices of the kernel's that wrap frames, as Open vSwitch's kernel datapath makes them (vxlan_sys_4789, …). */
const tunnelKinds = ['vxlan', 'geneve', 'gretap', 'ip6gretap', 'erspan', 'ip6erspan', 'gre', 'ip6gre'];

/** Where frames of the switches' tunnels may wait: the tunnels' own devices, and those that their packets leave by. */
export function underlayDevices(bridges: readonly OvsBridge[], links: readonly Link[]): number[] {
  const interfaces = bridges.flatMap(({ ports }) => ports.flatMap((port) => port.interfaces));
  // A remote may also be "flow": then flows set it, and only the tunnel's own device is known.
  const remotes = new Set(interfaces.map(({ options }) => options['remote_ip'] ?? '').filter(isIP));
  const routed = [...remotes].flatMap((remote) => routeDevice(remote) ?? []);
  const tunnels = links.filter(({ kind }) => tunnelKinds.includes(kind)).map(({ ifindex }) => ifindex);
  return stackOf([...tunnels, ...routed], links);
}

/** Devices and all that they stand on: the device below a VLAN, the ports of a bridge or a bond. */
export function stackOf(devices: readonly number[], links: readonly Link[]): number[] {
  const found = new Set<number>();
  const pending = [...devices];
  for (let ifindex = pending.pop(); ifindex !== undefined; ifindex = pending.pop()) {
    if (found.has(ifindex)) continue;
    found.add(ifindex);
    const below = links.filter((link) => link.ifindex === ifindex).flatMap((link) => link.below ?? []);
    const ports = links.filter(({ master }) => master === ifindex).map((link) => link.ifindex);
    pending.push(...below, ...ports);
  }
  return [...found];
}
