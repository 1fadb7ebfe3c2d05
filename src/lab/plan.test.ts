import { describe, expect, it } from 'vitest';
import { guestCommandLine } from './guest-command-line.ts';
import { parseLabFile } from './lab-file.ts';
import { planLab } from './plan.ts';
import { switchCommands } from './switches.ts';
import { qemuCommand } from './vm.ts';

function planOf(text: string): ReturnType<typeof planLab> {
  return planLab(parseLabFile(text));
}

const image = (name: string) => ({ directory: `/x/${name}`, kernel: '', initrd: '' });
const machine = {
  ...{ accelerator: 'tcg' as const, tscKhz: 2_000_000, vhost: false },
  images: { cloud: image('cloud'), full: image('full') },
};

const THREE_HOSTS = `name: three
hosts: [{ name: h1 }, { name: h2 }, { name: h3 }]
vms: [{ name: a, host: h1 }, { name: b, host: h2 }, { name: c, host: h3 }]
`;

describe('the plan of a lab', () => {
  it('gives addresses, MACs and interface names by rule, none of them twice', () => {
    const plan = planOf(THREE_HOSTS);
    expect(plan.hosts.map((host) => host.managementAddress)).toEqual([
      '198.18.0.11/24',
      '198.18.0.12/24',
      '198.18.0.13/24',
    ]);
    expect(plan.vms.map((vm) => vm.nics[0]!.interfaces[0]!.address)).toEqual([
      '10.77.0.1/24',
      '10.77.0.2/24',
      '10.77.0.3/24',
    ]);
    expect(new Set(plan.vms.map((vm) => vm.nics[0]!.mac)).size).toBe(3);
    const links = [plan.management.bridge, ...plan.hosts.map((host) => host.managementLink)];
    expect(new Set(links).size).toBe(4);
    for (const link of links) expect(link.length).toBeLessThan(16);
  });

  it('joins all hosts by protected tunnels, so that a full mesh has no loop', () => {
    for (const host of planOf(THREE_HOSTS).hosts) {
      expect(host.tunnels).toHaveLength(2);
      expect(host.tunnels.every((tunnel) => tunnel.protected)).toBe(true);
      // A column of its own (ovs-vswitchd.conf.db(5)): Open vSwitch takes the key in other_config without a word.
      expect(switchCommands(host).flat()).toContain('protected=true');
    }
  });

  it('lets tunnels of a chain that the file names forward to each other', () => {
    const plan = planOf(`${THREE_HOSTS}links: [{ from: h1, to: h2 }, { from: h2, to: h3 }]\n`);
    expect(plan.hosts.map((host) => host.tunnels.length)).toEqual([1, 2, 1]);
    expect(switchCommands(plan.hosts[1]!).flat().join(' ')).not.toContain('protected');
  });

  it('makes peers of the VMs that share a network only', () => {
    const plan = planOf(`name: nets
hosts: [{ name: h1 }]
networks: [{ name: red, vlan: 10 }, { name: blue, vlan: 20, subnet: 10.78.0.0/24 }]
vms:
  - { name: a, host: h1, nics: [{ network: red }] }
  - { name: b, host: h1, nics: [{ network: blue }] }
  - { name: c, host: h1, nics: [{ network: red }, { network: blue }] }
`);
    const peers = plan.vms.map((vm) => vm.peers.map(({ id, nic }) => [id, nic]));
    expect(peers).toEqual([
      [[3, '0']],
      [[3, '0']],
      [
        [1, '0'],
        [2, '1'],
      ],
    ]);
    expect(plan.vms[2]!.nics.map(({ vlan }) => vlan)).toEqual([10, 20]);
  });

  it("takes a stream's rate from its receiver, single peers first", () => {
    const plan = planOf(`name: rates
hosts: [{ name: h1 }]
vms:
  - { name: a, host: h1 }
  - { name: b, host: h1 }
  - { name: c, host: h1, probe: { tcpBytesPerSecond: 9000, tcpFrom: { a: unlimited } } }
`);
    const rate = (from: number): number =>
      plan.vms[from]!.peers.find(({ id }) => id === 3)!.tcpBytesPerSecond;
    expect([rate(0), rate(1)]).toEqual([-1, 9000]);
  });

  it('refuses addresses that clash or lie outside of their network', () => {
    const twice = 'vms: [{ name: a, host: h1, nics: [{ ip: 10.77.0.2 }] }, { name: b, host: h1 }]\n';
    expect(() => planOf(`name: x\nhosts: [{ name: h1 }]\n${twice}`)).toThrow(
      /"a" and "b" have the same address/,
    );
    const outside = 'vms: [{ name: a, host: h1, nics: [{ ip: 10.99.0.2 }] }]\n';
    expect(() => planOf(`name: x\nhosts: [{ name: h1 }]\n${outside}`)).toThrow(
      /10\.99\.0\.2 is not in 10\.77\.0\.0\/24/,
    );
  });

  it('refuses more peers than a kernel command line can name', () => {
    const vms = Array.from({ length: 50 }, (_, index) => `{ name: v${index}, host: h1 }`);
    const plan = planOf(`name: x\nhosts: [{ name: h1 }]\nvms: [${vms.join(', ')}]\n`);
    expect(() => guestCommandLine(plan.vms[0]!, 2_000_000)).toThrow(
      /more than its kernel command line can name/,
    );
  });

  it('launches guests without offloads, with a clock that stops with the VM', () => {
    const argv = qemuCommand(planOf(THREE_HOSTS).vms[0]!, machine).join(' ');
    expect(argv).toContain('vnet_hdr=off');
    expect(argv).toContain('clock=vm');
  });
});
