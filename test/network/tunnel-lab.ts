import { writeSync } from 'node:fs';
import { enterNetworkNamespace } from '../../src/native/netlink.ts';
import { readMacTable, type MacEntry } from '../../src/network/switches/mac-table.ts';
import type { MarkerPort } from '../../src/network/markers/paths.ts';
import type { VmPort } from '../../src/network/vm-port.ts';
import { VmPorts } from '../../src/network/vm-ports.ts';
import { NetworkLab, type LabTap } from './network-lab.ts';
import { OpenVSwitch } from './open-vswitch.ts';

export const bridge = 'br0';
const underlayBridge = 'bru';
const tunnelPort = 'vx0';

/** A tap with a guest behind it, played by the test. */
export interface Guest {
  readonly tap: LabTap;
  readonly mac: string;
  /** Its frames carry a tag of this VLAN: its port is a trunk. */
  readonly vlan: number | null;
}

export interface GuestWish {
  readonly vlan?: number;
  readonly vnetHdr?: boolean;
}

const addressOf = (host: number) => `10.77.0.${host + 1}`;
const underlayMacOf = (host: number) => `02:77:00:00:00:0${host}`;

/** One end of the tunnel: a namespace with an Open vSwitch of its own. Its guests are on bridge br0. */
export class TunnelHost {
  readonly name: string;
  readonly guests: Guest[] = [];
  readonly ovs: OpenVSwitch;
  readonly #namespace: string;

  private constructor(name: string, namespace: string, ovs: OpenVSwitch) {
    this.name = name;
    this.#namespace = namespace;
    this.ovs = ovs;
  }

  static async start(lab: NetworkLab, place: number, underlay: string, namespace: string) {
    enterNetworkNamespace(`/run/netns/${namespace}`);
    const host = new TunnelHost(`h${place}`, namespace, await OpenVSwitch.start());
    const remote = 1 - place;
    host.ovs.bridge(underlayBridge, { [underlay]: [] });
    host.ovs.vsctl('set', 'bridge', underlayBridge, `other_config:hwaddr=${underlayMacOf(place)}`);
    host.ovs.bridge(bridge, {
      [tunnelPort]: [
        ...['--', 'set', 'interface', tunnelPort, 'type=vxlan'],
        ...[`options:remote_ip=${addressOf(remote)}`, 'options:key=77'],
      ],
    });
    lab.ip('address', 'add', `${addressOf(place)}/24`, 'dev', underlayBridge);
    lab.ip('link', 'set', underlayBridge, 'up');
    host.ovs.appctl('tnl/neigh/set', underlayBridge, addressOf(remote), underlayMacOf(remote));
    return host;
  }

  /** Everything that follows, until another host is entered, happens here. */
  enter(): void {
    enterNetworkNamespace(`/run/netns/${this.#namespace}`);
    this.ovs.select();
  }

  addGuest(lab: NetworkLab, { vlan, vnetHdr = false }: GuestWish = {}): Guest {
    this.enter();
    const tap = lab.tap({ vnetHdr });
    const place = this.guests.length;
    const guest = { tap, mac: `02:00:00:00:0${this.name.slice(1)}:0${place}`, vlan: vlan ?? null };
    this.ovs.vsctl('add-port', bridge, tap.name);
    this.guests.push(guest);
    return guest;
  }

  async macTable(): Promise<MacEntry[]> {
    this.enter();
    return (await readMacTable(bridge)).sort((a, b) => (a.mac < b.mac ? -1 : 1));
  }

  /** The guests' ports behind a gate, as a barrier has them. */
  gated(): VmPorts {
    this.enter();
    const ports = this.guests.map(({ tap: { name, ifindex, fd } }): VmPort => {
      return { vm: `vm-${name}`, name, ifindex, tapFds: [fd] };
    });
    const gated = VmPorts.create({ ports, ringBytes: 1 << 20, hold: false });
    gated.attach();
    return gated;
  }

  markerPorts(): MarkerPort[] {
    return this.guests.map(({ tap: { name: tap }, mac }) => ({
      tap,
      mac,
      switchPort: { bridge, port: tap, vlanMode: null, tag: null, trunks: [] },
    }));
  }
}

/** Two hosts whose switches are joined by a VXLAN tunnel; its packets cross a wire in a namespace in between. */
export class TunnelLab {
  readonly lab: NetworkLab;
  readonly hosts: readonly [TunnelHost, TunnelHost];
  /** The device of the wire that leads to the second host. */
  readonly towardsSecond: string;

  private constructor(lab: NetworkLab, hosts: readonly [TunnelHost, TunnelHost], towardsSecond: string) {
    this.lab = lab;
    this.hosts = hosts;
    this.towardsSecond = towardsSecond;
  }

  static async start(): Promise<TunnelLab> {
    const lab = NetworkLab.enter();
    const hosts: TunnelHost[] = [];
    try {
      const [[first, wireFirst], [second, wireSecond]] = [await lab.veth(), await lab.veth()];
      await lab.bridge(wireFirst, wireSecond);
      for (const [place, underlay] of [first, second].entries()) {
        const namespace = lab.elsewhere([underlay], () => lab.ip('link', 'set', underlay, 'up'));
        hosts.push(await TunnelHost.start(lab, place, underlay, namespace));
        enterNetworkNamespace(`/run/netns/${lab.namespace}`);
      }
      return new TunnelLab(lab, [hosts[0]!, hosts[1]!], wireSecond);
    } catch (error) {
      await stop(lab, hosts);
      throw error;
    }
  }

  /** Does something on the wire, in the namespace between the hosts. */
  onTheWire<T>(action: () => T): T {
    enterNetworkNamespace(`/run/netns/${this.lab.namespace}`);
    return action();
  }

  stop(): Promise<void> {
    return stop(this.lab, this.hosts);
  }
}

async function stop(lab: NetworkLab, hosts: readonly TunnelHost[]): Promise<void> {
  for (const { ovs } of hosts) await ovs.stop();
  enterNetworkNamespace(`/run/netns/${lab.namespace}`);
  lab.leave();
}

const etherType = '88b6';

/** Writes a frame as QEMU does for its guest, with the header of the tap that it has. */
export function speak({ tap, mac, vlan }: Guest, to: string, number: number, headerBytes = 0): void {
  const tag = vlan === null ? '' : `8100${vlan.toString(16).padStart(4, '0')}`;
  const head = Buffer.from([to, mac].join('').replaceAll(':', '') + tag + etherType, 'hex');
  const payload = Buffer.alloc(1000, number);
  writeSync(tap.fd, Buffer.concat([Buffer.alloc(headerBytes), head, payload]));
}
