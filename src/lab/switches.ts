import { linkShapingCommands, shapedTunnels, UNDERLAY_PORT } from './link-shaping.ts';
import type { HostPlan, LabPlan, NicPlan, VmPlan } from './plan.ts';
import { qdiscArguments } from './shaping.ts';

/**
 * The commands that make a host's switches, as data. Under Open vSwitch's userspace datapath a tunnel leaves
 * through a bridge that holds the underlay port and, on its own interface, the tunnel's local address
 * (Documentation/howto/userspace-tunneling.rst of Open vSwitch).
 */
const UNDERLAY_BRIDGE = 'br-underlay';
/** Room for a tunnel's headers around a guest's largest frame. */
export const UNDERLAY_MTU_BYTES = 9216;
const DEFAULT_MTU_BYTES = 1500;
/** The longest that Open vSwitch keeps a tunnel's neighbour without using it, in seconds. */
const NEIGHBOUR_AGING_SECONDS = 3600;

type Command = readonly string[];

/**
 * Open vSwitch removes a qdisc that it finds on a port, unless the port's QoS is "linux-noop"
 * (ovs-vswitchd.conf.db(5)); so the shaping comes after the port.
 */
function leaveQdisc(port: string): string[] {
  return [
    ...['--', 'set', 'port', port, 'qos=@shaped'],
    ...['--', '--id=@shaped', 'create', 'qos', 'type=linux-noop'],
  ];
}

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
      `type=${tunnel.type}`,
      ...options,
    ];
    return tunnel.protected ? [...add, '--', 'set', 'port', tunnel.name, 'protected=true'] : add;
  });
  return [
    'ovs-vsctl',
    ...netdev(UNDERLAY_BRIDGE),
    `other_config:hwaddr=${host.underlayMac}`,
    ...['--', 'add-port', UNDERLAY_BRIDGE, UNDERLAY_PORT],
    ...(shapedTunnels(host).length === 0 ? [] : leaveQdisc(UNDERLAY_PORT)),
    ...['--', 'set', 'interface', UNDERLAY_BRIDGE, `mtu_request=${UNDERLAY_MTU_BYTES}`],
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
    // The switch has taken note of the address by now: it does that after it has answered a command.
    ['ovs-appctl', 'ovs/route/add', host.underlayAddress, UNDERLAY_BRIDGE],
    // Known in advance: the first frame through a tunnel would be dropped for an ARP request otherwise.
    ...host.tunnels.map((tunnel) => [
      'ovs-appctl',
      'tnl/neigh/set',
      UNDERLAY_BRIDGE,
      tunnel.remoteAddress,
      tunnel.remoteMac,
    ]),
    ...linkShapingCommands(host),
  ];
}

function vlanOf({ vlan, interfaces }: NicPlan): string[] {
  if (vlan !== null) return [`tag=${vlan}`];
  const trunks = interfaces.flatMap((one) => (one.vlan === null ? [] : [one.vlan]));
  return trunks.length === 0 ? [] : [`trunks=${trunks.join(',')}`, 'vlan_mode=trunk'];
}

/** The switch's buffers for a tap are as large as its MTU, so that is set before the port is added. */
function tapCommands(nic: NicPlan): Command[] {
  const queues = nic.queues > 1 ? ['multi_queue'] : [];
  const mtu = nic.mtuBytes === DEFAULT_MTU_BYTES ? [] : ['mtu', String(nic.mtuBytes)];
  return [
    ['ip', 'tuntap', 'add', nic.tap, 'mode', 'tap', ...queues],
    ['ip', 'link', 'set', nic.tap, ...mtu, 'up'],
    [
      ...['ovs-vsctl', 'add-port', nic.switch, nic.tap, ...vlanOf(nic)],
      ...(nic.shape === null ? [] : leaveQdisc(nic.tap)),
    ],
    ...(nic.shape === null
      ? []
      : [['tc', 'qdisc', 'replace', 'dev', nic.tap, 'root', ...qdiscArguments(nic.shape, nic.mtuBytes)]]),
  ];
}

/** The taps of a VM: persistent, so that they and their place in the switch outlive its QEMU. */
export function portCommands(vm: VmPlan): Command[] {
  return vm.nics.flatMap(tapCommands);
}

export function vmsOf(plan: LabPlan, host: string): readonly VmPlan[] {
  return plan.vms.filter((vm) => vm.host === host);
}
