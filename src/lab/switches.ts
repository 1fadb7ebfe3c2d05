import type { HostPlan, LabPlan, NicPlan, VmPlan } from './plan.ts';

/**
 * The commands that make a host's switches, as data. Under Open vSwitch's userspace datapath a tunnel leaves
 * through a bridge that holds the underlay port and, on its own interface, the tunnel's local address
 * (Documentation/howto/userspace-tunneling.rst of Open vSwitch).
 */
const UNDERLAY_BRIDGE = 'br-underlay';
const UNDERLAY_MTU = 9000;
/** The longest that Open vSwitch keeps a tunnel's neighbour without using it, in seconds. */
const NEIGHBOUR_AGING_SECONDS = 3600;

type Command = readonly string[];

function bridgeCommands(host: HostPlan): Command {
  const netdev = (bridge: string): string[] => [
    '--',
    'add-br',
    bridge,
    '--',
    'set',
    'bridge',
    bridge,
    'datapath_type=netdev',
  ];
  const tunnels = host.tunnels.flatMap((tunnel) => {
    const options = [`options:remote_ip=${tunnel.remoteAddress}`, `options:key=${tunnel.key}`];
    const add = [
      '--',
      'add-port',
      tunnel.switch,
      tunnel.name,
      '--',
      'set',
      'interface',
      tunnel.name,
      'type=vxlan',
      ...options,
    ];
    return tunnel.protected ? [...add, '--', 'set', 'port', tunnel.name, 'protected=true'] : add;
  });
  return [
    'ovs-vsctl',
    ...netdev(UNDERLAY_BRIDGE),
    `other_config:hwaddr=${host.underlayMac}`,
    ...['--', 'add-port', UNDERLAY_BRIDGE, 'underlay'],
    ...['--', 'set', 'interface', UNDERLAY_BRIDGE, `mtu_request=${UNDERLAY_MTU}`],
    ...host.switches.flatMap(netdev),
    ...tunnels,
  ];
}

export function switchCommands(host: HostPlan): Command[] {
  return [
    bridgeCommands(host),
    ['ip', 'address', 'add', host.underlayAddress, 'dev', UNDERLAY_BRIDGE],
    ['ip', 'link', 'set', UNDERLAY_BRIDGE, 'up'],
    ['ovs-appctl', 'tnl/neigh/aging', String(NEIGHBOUR_AGING_SECONDS)],
    // Known in advance: the first frame through a tunnel would be dropped for an ARP request otherwise.
    ...host.tunnels.map((tunnel) => [
      'ovs-appctl',
      'tnl/neigh/set',
      UNDERLAY_BRIDGE,
      tunnel.remoteAddress,
      tunnel.remoteMac,
    ]),
  ];
}

/**
 * Open vSwitch removes a qdisc that it finds on a new port, unless the port's QoS is "linux-noop"
 * (ovs-vswitchd.conf.db(5)); so the shaping comes after the port.
 */
function tapCommands(nic: NicPlan): Command[] {
  const tag = nic.vlan === null ? [] : [`tag=${nic.vlan}`];
  const plain: Command[] = [
    ['ip', 'tuntap', 'add', nic.tap, 'mode', 'tap'],
    ['ip', 'link', 'set', nic.tap, 'up'],
  ];
  if (nic.shape === null) return [...plain, ['ovs-vsctl', 'add-port', nic.switch, nic.tap, ...tag]];
  const qos = [
    '--',
    'set',
    'port',
    nic.tap,
    'qos=@shaped',
    '--',
    '--id=@shaped',
    'create',
    'qos',
    'type=linux-noop',
  ];
  const { rate, burst, latency } = nic.shape;
  const tbf = ['tbf', 'rate', rate, 'burst', burst, 'latency', latency];
  return [
    ...plain,
    ['ovs-vsctl', 'add-port', nic.switch, nic.tap, ...tag, ...qos],
    ['tc', 'qdisc', 'replace', 'dev', nic.tap, 'root', ...tbf],
  ];
}

/** The taps of a VM: persistent, so that they and their place in the switch outlive its QEMU. */
export function portCommands(vm: VmPlan): Command[] {
  return vm.nics.flatMap(tapCommands);
}

export function vmsOf(plan: LabPlan, host: string): readonly VmPlan[] {
  return plan.vms.filter((vm) => vm.host === host);
}
