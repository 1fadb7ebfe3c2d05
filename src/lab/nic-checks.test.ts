import { describe, expect, it } from 'vitest';
import { guestCommandLine } from './guest-command-line.ts';
import { parseLabFile } from './lab-file.ts';
import { planLab } from './plan.ts';
import { portCommands } from './switches.ts';
import { qemuCommand } from './vm.ts';

const image = (name: string) => ({ directory: `/x/${name}`, kernel: '', initrd: '' });
const images = { cloud: image('cloud'), full: image('full') };

function planOf(nics: string): ReturnType<typeof planLab> {
  return planLab(
    parseLabFile(`name: nics
hosts: [{ name: h1 }]
networks:
  - { name: red, vlan: 10 }
  - { name: blue, vlan: 20, subnet: 10.78.0.0/24 }
  - { name: large, mtu: 9000, subnet: 10.79.0.0/24 }
vms:
  - { name: a, host: h1, nics: [${nics}] }
  - { name: b, host: h1, nics: [{ network: blue }] }
`),
  );
}

function qemuOf(nics: string, vhost = false): string {
  const machine = { accelerator: 'tcg' as const, tscKhz: 1, vhost, images };
  return qemuCommand(planOf(nics).vms[0]!, machine).join(' ');
}

describe('a NIC of the lab file', () => {
  it.each([
    ['{ model: e1000, queues: 2 }', 'an e1000 has one queue'],
    ['{ model: rtl8139, vhost: on }', 'vhost serves virtio, not an rtl8139'],
    ['{ offloads: on }', 'without their checksums'],
    ['{ model: rtl8139, network: large }', 'takes no frames of 9000 bytes'],
    ['{ trunk: [red, large] }', 'network "large" has no VLAN to tell it by in a trunk'],
    ['{ trunk: [red, none] }', 'there is no network "none"'],
    ['{ trunk: [red], network: blue }', 'in one network, or in those of a trunk'],
    ['{ trunk: [red], ip: 10.77.0.9 }', 'an address in each of its networks'],
    ['{ network: large, shape: { rate: 1mbit, burst: 4kb } }', 'a burst of 4kb drops frames of 9018 bytes'],
  ])('is refused where it cannot work: %s', (nic, reason) => {
    expect(() => planOf(nic)).toThrow(reason);
  });

  it('has the model, the queues and the header that the file says', () => {
    expect(qemuOf('{ model: e1000, offloads: on }')).toMatch(/vnet_hdr=on -device e1000,/);
    expect(qemuOf('{ queues: 2 }')).toMatch(/queues=2 -device virtio-net-pci,.*,mq=on,vectors=6/);
    expect(qemuOf('{ vhost: auto }')).toContain('vhost=off');
    expect(qemuOf('{ vhost: auto }', true)).toContain('vhost=on');
  });

  it('brings the kernel that has its driver, and only then', () => {
    expect(qemuOf('{}')).toContain('/guest/cloud/vmlinuz');
    expect(qemuOf('{}, { model: rtl8139, network: blue }')).toContain('/guest/full/vmlinuz');
  });

  it('has a tap with its queues and MTU, and a port with its VLANs', () => {
    const commands = (nic: string): string[] =>
      portCommands(planOf(nic).vms[0]!).map((command) => command.join(' '));
    expect(commands('{ queues: 2, network: large }')).toEqual([
      'ip tuntap add tap0-0 mode tap multi_queue',
      'ip link set tap0-0 mtu 9000 up',
      'ovs-vsctl add-port br-int tap0-0',
    ]);
    expect(commands('{ trunk: [red, blue] }').at(-1)).toBe(
      'ovs-vsctl add-port br-int tap0-0 trunks=10,20 vlan_mode=trunk',
    );
  });

  it('has an interface in each network of its trunk, and meets peers in each', () => {
    const plan = planOf('{ trunk: [red, blue] }, { network: large }');
    const line = guestCommandLine(plan.vms[0]!, 1);
    expect(line).toContain('sg.nic=1500 sg.nic=9000 sg.if=0,10,10.77.0.1/24 sg.if=0,20,10.78.0.1/24');
    expect(line).toContain('sg.if=1,,10.79.0.1/24');
    expect(plan.vms[0]!.peers.map(({ address, nic }) => [address, nic])).toEqual([['10.78.0.2', '0.20']]);
    expect(plan.vms[1]!.peers.map(({ address, nic }) => [address, nic])).toEqual([['10.78.0.1', '0']]);
  });
});
