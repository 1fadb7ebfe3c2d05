import { writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate } from '../../src/native/gate.ts';
import { enterNetworkNamespace, setLink } from '../../src/native/netlink.ts';
import { isOurs, NetworkLab, numberedFrame, numberOf, numbers, until } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';
import { datapath, DatapathSwitch } from './datapath-switch.ts';

const UNDERLAY_MTU = 9000;
const PROBE = 0xffff;
const hex = (frame: Buffer) => frame.toString('hex');

interface Host {
  readonly lab: NetworkLab;
  readonly ovs: DatapathSwitch;
  readonly tap: LabTap;
}

describe(`tunnels between two hosts (datapath ${datapath})`, () => {
  const hosts: Host[] = [];
  const addresses = ['192.0.2.1', '192.0.2.2'] as const;
  const macs = ['02:00:00:00:00:a1', '02:00:00:00:00:a2'] as const;
  let gate: Gate;

  beforeEach(async () => {
    for (const place of [0, 1]) {
      const lab = NetworkLab.enter();
      const ovs = await DatapathSwitch.start();
      hosts.push({ lab, ovs, tap: lab.tap() });
      if (place === 0) continue;
      const [first] = hosts;
      lab.ip(
        'link',
        'add',
        'under1',
        'type',
        'veth',
        'peer',
        'name',
        'under0',
        'netns',
        String(first?.lab.namespace),
      );
      gate = Gate.create({ slots: 1, ringBytes: 4 << 20 });
    }
  });

  afterEach(async () => {
    gate.close();
    for (const { lab, ovs } of hosts.splice(0).reverse()) {
      enterNetworkNamespace(`/run/netns/${lab.namespace}`);
      await ovs.stop();
      lab.leave();
    }
  });

  /** The underlay: of the kernel, or, with the datapath of user space, a bridge that has its address. */
  function wireUnderlay({ lab, ovs }: Host, place: number): void {
    const [device, address, mac] = [`under${place}`, `${addresses[place]}/24`, String(macs[place])];
    lab.ip('link', 'set', device, 'address', mac);
    setLink({ ifindex: lab.ifindex(device), mtu: UNDERLAY_MTU, up: true });
    if (datapath === 'system') {
      lab.ip('address', 'add', address, 'dev', device);
      return;
    }
    ovs.bridge('br-under', `other_config:hwaddr=${mac}`);
    ovs.port('br-under', device);
    ovs.vsctl('set', 'interface', 'br-under', `mtu_request=${UNDERLAY_MTU}`);
    lab.ip('address', 'add', address, 'dev', 'br-under');
    lab.ip('link', 'set', 'br-under', 'up');
    ovs.appctl('tnl/neigh/set', 'br-under', String(addresses[1 - place]), String(macs[1 - place]));
  }

  function wire(kind: string): void {
    for (const [place, host] of hosts.entries()) {
      enterNetworkNamespace(`/run/netns/${host.lab.namespace}`);
      wireUnderlay(host, place);
      host.ovs.bridge('br0');
      host.ovs.port('br0', host.tap.name);
      const options = [`options:remote_ip=${addresses[1 - place]}`, 'options:key=7'];
      host.ovs.port('br0', 'tunnel', '--', 'set', 'interface', 'tunnel', `type=${kind}`, ...options);
    }
  }

  it.each(['vxlan', 'geneve', 'gre'])(
    '%s: what comes through it is held, and returned in order',
    async (kind) => {
      wire(kind);
      const [from, to] = hosts as [Host, Host];
      gate.attachTap({ fd: to.tap.fd, slot: 0 });
      const reader = to.lab.reader(to.tap);
      const arrived = () => reader.frames.map(({ frame }) => frame).filter(isOurs);
      const probe = () => {
        writeSync(from.tap.fd, numberedFrame(PROBE));
        return arrived().length > 0;
      };
      await until(probe, 'the tunnel forwards', 60_000);
      const frames = numbers(0, 200).map((number) => hex(numberedFrame(number, 60 + 7 * number)));
      const isWanted = (frame: Buffer) => isOurs(frame) && numberOf(frame) !== PROBE;
      const held = () => [...gate.held()].map(({ frame }) => frame).filter(isWanted);
      gate.setMode('hold');
      for (const [place, frame] of frames.entries()) {
        writeSync(from.tap.fd, Buffer.from(frame, 'hex'));
        // In bites: a socket of Open vSwitch's datapath in user space has room for about a hundred frames.
        if (place % 20 === 19) await until(() => held().length > place, 'all frames are held');
      }
      // With several processors a network may change the order; the gate does not.
      const kept = held().map(hex);
      expect([...kept].sort()).toEqual([...frames].sort());
      const now = process.hrtime.bigint();
      const report = await gate.replay({
        ports: [{ slot: 0, ifindex: to.tap.ifindex, shiftNs: 0n, notBeforeNs: now }],
      });
      expect(report.ports[0]).toMatchObject({ undeliverable: 0, missing: 0 });
      const returned = () => arrived().filter(isWanted).map(hex);
      await until(() => returned().length >= frames.length, 'all frames are returned');
      expect(returned()).toEqual(kept);
      expect(gate.counters(0)).toMatchObject({ failed: 0 });
    },
  );
});
