import { run } from '../../lab/command.ts';
import { BenchNamespace, type BenchTap } from './namespace.ts';
import { OpenVSwitch } from './open-vswitch.ts';

export type EndpointTap = Omit<BenchTap, 'fd'>;

/** A host of an emulated network: a namespace, the taps of its endpoints, and what else frames may wait in. */
export interface NetworkHost {
  readonly namespace: BenchNamespace;
  readonly taps: readonly EndpointTap[];
  readonly switchedDevices: readonly number[];
  /** An Open vSwitch in user space; null: there is none. */
  readonly openVSwitch: Pick<OpenVSwitch, 'directory' | 'pid'> | null;
  /** Frames that the network here has dropped by itself: its sockets were full, its queues were, it could not send. */
  drops(): Promise<number>;
}

/** A network of endpoints' taps. It exists while the work on it goes on. */
export interface NetworkKind {
  readonly name: string;
  within<Result>(
    signal: AbortSignal,
    work: (hosts: readonly NetworkHost[]) => Promise<Result>,
  ): Promise<Result>;
}

const tapsOf = (host: string, count: number) =>
  Array.from({ length: count }, (_, place) => `sgt${host}${place}`);

/**
 * A token bucket in front of the first endpoint of a host, a little faster than what comes for it: bursts wait there,
 * so a cut finds frames in flight on any machine. Not in front of all: what waits in queues counts against the one
 * socket that Open vSwitch sends by, and above some 270 frames in all of them it drops (docs/decisions/0010).
 */
const bucket = ['tbf', 'rate', '10mbit', 'burst', '1600', 'limit', '1000000'];

async function shape([first]: readonly EndpointTap[]): Promise<void> {
  if (first !== undefined) await run(['tc', 'qdisc', 'replace', 'dev', first.name, 'root', ...bucket]);
}

/** One host with a bridge of the kernel. */
export const oneBridge: NetworkKind = {
  name: 'a bridge',
  within: (_signal, work) =>
    BenchNamespace.within(async (namespace) => {
      const taps = namespace.persistentTaps(tapsOf('a', 8));
      await namespace.bridge(taps);
      await shape(taps);
      const host = { namespace, taps, switchedDevices: [], openVSwitch: null };
      return work([{ ...host, drops: () => namespace.drops() }]);
    }),
};

const underlayMtu = 9000;
const tunnelKey = 77;
const ends = [
  { host: 'a', address: '198.18.77.1', mac: '02:00:00:77:00:01' },
  { host: 'b', address: '198.18.77.2', mac: '02:00:00:77:00:02' },
] as const;

/** Two hosts, each with Open vSwitch's userspace datapath, and a VXLAN tunnel between them. */
export const twoSwitches: NetworkKind = {
  name: 'two Open vSwitches and a VXLAN tunnel',
  within: (signal, work) =>
    BenchNamespace.within((one) =>
      BenchNamespace.within(async (other) => {
        const namespaces = [one, other] as const;
        one.enter();
        await run([
          'ip',
          'link',
          'add',
          'underlay',
          'type',
          'veth',
          'peer',
          'name',
          'underlay',
          'netns',
          other.name,
        ]);
        const switches: OpenVSwitch[] = [];
        try {
          const hosts: NetworkHost[] = [];
          for (const [place, namespace] of namespaces.entries()) {
            namespace.enter();
            const own = await OpenVSwitch.start(signal);
            switches.push(own);
            hosts.push(await bringUpHost(namespace, own, place));
          }
          return await work(hosts);
        } finally {
          for (const own of switches) await own.stop();
        }
      }),
    ),
};

/**
 * Under the userspace datapath a tunnel leaves through a bridge that holds the underlay port and, on its own
 * interface, the tunnel's address (Documentation/howto/userspace-tunneling.rst of Open vSwitch).
 */
async function bringUpHost(namespace: BenchNamespace, own: OpenVSwitch, place: number): Promise<NetworkHost> {
  const [here, there] = [ends[place]!, ends[1 - place]!];
  const taps = namespace.persistentTaps(tapsOf(here.host, 4));
  await run(['ip', 'link', 'set', 'underlay', 'mtu', `${underlayMtu}`, 'up']);
  const bridge = (name: string) => [
    '--',
    'add-br',
    name,
    '--',
    'set',
    'bridge',
    name,
    'datapath_type=netdev',
  ];
  const options = [`options:remote_ip=${there.address}`, `options:key=${tunnelKey}`];
  await own.vsctl(
    ...[
      ...bridge('br-underlay'),
      `other_config:hwaddr=${here.mac}`,
      '--',
      'add-port',
      'br-underlay',
      'underlay',
    ],
    ...[...bridge('br-int'), '--', 'add-port', 'br-int', 'tunnel'],
    ...['--', 'set', 'interface', 'tunnel', 'type=vxlan', ...options],
    ...taps.flatMap(({ name }) => [
      '--',
      'add-port',
      'br-int',
      name,
      '--',
      'set',
      'port',
      name,
      'qos=@shaped',
    ]),
    // Open vSwitch removes the qdisc of a port whose QoS is not of this type (ovs-vswitchd.conf.db(5)).
    ...['--', '--id=@shaped', 'create', 'qos', 'type=linux-noop'],
  );
  await shape(taps);
  await run(['ip', 'address', 'add', `${here.address}/24`, 'dev', 'br-underlay']);
  await run(['ip', 'link', 'set', 'br-underlay', 'up']);
  await own.appctl('tnl/neigh/set', 'br-underlay', there.address, there.mac);
  // The switch has taken note of the address by now: it does that after it has answered a command.
  await own.appctl('ovs/route/add', `${here.address}/24`, 'br-underlay');
  const drops = () => namespace.drops(own.log);
  const switchedDevices = [namespace.ifindex('underlay')];
  return { namespace, taps, switchedDevices, openVSwitch: own, drops };
}
