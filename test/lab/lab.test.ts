import { spawnSync } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CommandError, run } from '../../src/lab/command.ts';
import {
  DropWatch,
  flawsOf,
  isFlawless,
  judge,
  labDown,
  labStatus,
  labUp,
  parseLabFile,
  readReports,
  runInHost,
  type Lab,
} from '../../src/lab/index.ts';
import { planLab } from '../../src/lab/plan.ts';
import { isAlive, identify, processesIn, until, type ProcessId } from '../../src/lab/processes.ts';
import { leftovers } from './leftovers.ts';

// Needs root, QEMU and Open vSwitch. Names and addresses are of this process, so that runs do not meet.
const name = `labtest-${process.pid}`;
const subnet = `198.18.${64 + (process.pid % 64)}.0/24`;
const file = parseLabFile(`name: ${name}
management: ${subnet}
hosts:
  - name: h1
  - { name: h2, clock: { monotonicOffsetSeconds: 5000 } }
networks: [{ name: lan, vlan: 10 }]
links: [{ from: h1, to: h2, shape: { rate: 50mbit }, shapeBack: { rate: 60mbit } }]
vms:
  - { name: a, host: h1 }
  - name: b
    host: h2
    nics: [{ shape: { rate: 20mbit } }]
    probe: { reportIntervalMs: 250, tcpSegmentBytes: 400, tcpWindowBytes: 4000 }
`);
const plan = planLab(file);
const links = [plan.management.bridge, ...plan.hosts.map(({ managementLink }) => managementLink)];

describe('a lab with a delay', () => {
  const delayed = parseLabFile(`name: ${name}-d
management: ${subnet}
hosts: [{ name: h1 }, { name: h2 }]
links: [{ from: h1, to: h2, shape: { delay: 10ms } }]
vms: [{ name: a, host: h1 }]
`);
  const trial = 'ip link add x type veth peer name y && tc qdisc add dev x root netem delay 1ms';
  const hasNetem = spawnSync('unshare', ['--net', 'sh', '-c', trial]).status === 0;

  it.skipIf(hasNetem)('is refused by a kernel without netem before anything is made', async () => {
    await expect(labUp(delayed)).rejects.toMatchObject({
      code: 'host-unfit',
      message: expect.stringMatching(/no sch_netem .* the link from "h1" to "h2" needs/) as string,
    });
    expect(leftovers(delayed.name, [])).toEqual([]);
  });
});

describe('a lab of two hosts', { timeout: 60_000 }, () => {
  let lab: Lab;
  const steps: string[] = [];
  beforeAll(async () => {
    lab = await labUp(file, { onProgress: ({ step, detail }) => steps.push(`${step} ${detail}`) });
  }, 240_000);
  afterAll(() => labDown(name), 60_000);

  const ssh = (host: string, command: string, ...options: string[]): Promise<string> =>
    run(['ssh', '-F', lab.sshConfig, ...options, host, command]);

  it('is up when every guest has heard its peers, and says its steps', async () => {
    expect(steps).toContain('ready a');
    expect(steps).toContain('ready b');
    const status = await labStatus(name);
    expect(status).toMatchObject({ state: 'up', hosts: [{ name: 'h1' }, { name: 'h2' }] });
    for (const { pid } of status.vms)
      expect(await readFile(`/proc/${pid}/comm`, 'utf8')).toMatch(/^qemu-system/);
    expect(status.vms.map(({ lastReport }) => lastReport?.peersReached ?? 1)).toEqual([1, 1]);
  });

  it('gives each host its own sshd, Open vSwitch and directories', async () => {
    expect((await ssh('h1', 'hostname')).trim()).toBe('h1');
    expect(await ssh('h2', 'ovs-vsctl list-ports br-int')).toMatch(/^tap1-0$/m);
    expect(await ssh('h1', 'ovs-vsctl list-ports br-int')).not.toMatch(/tap1-0/);
    await ssh('h1', 'mkdir -p /var/lib/staghorn/x');
    expect(await ssh('h2', 'ls /var/lib/staghorn')).toBe('');
    expect((await ssh('h1', 'cat /proc/1/comm')).trim()).toBe('tini');
  });

  it('refuses a host whose key is not the known one', async () => {
    const known = join(tmpdir(), `${name}-known`);
    const other = (await readFile(lab.knownHosts, 'utf8')).split('\n');
    // Each host's name with the other one's key.
    const swapped = [0, 1].map(
      (n) => `${other[n]!.split(' ')[0]} ${other[1 - n]!.split(' ').slice(1).join(' ')}\n`,
    );
    await writeFile(known, swapped.join(''));
    try {
      const attempt = ssh('h1', 'true', '-o', `UserKnownHostsFile=${known}`);
      await expect(attempt).rejects.toThrow(CommandError);
      await expect(attempt).rejects.toThrow(/Host key verification failed/);
    } finally {
      await rm(known);
    }
  });

  it('names its hosts to the controller in a file', async () => {
    expect(JSON.parse(await readFile(lab.experimentFile, 'utf8'))).toEqual({
      name,
      hosts: ['h1', 'h2'].map((host) => ({ name: host, ssh: host, sshConfig: lab.sshConfig })),
    });
  });

  it('keeps the shaping and the VLAN that the file says', async () => {
    expect(await ssh('h2', 'tc qdisc show dev tap1-0')).toMatch(/^qdisc tbf .* rate 20Mbit/);
    expect((await ssh('h2', 'ovs-vsctl get port tap1-0 tag')).trim()).toBe('10');
  });

  it('shifts the clock of a host that asks for it', async () => {
    const uptime = async (host: string): Promise<number> =>
      Number((await ssh(host, 'cat /proc/uptime')).split(' ')[0]);
    const [first, second] = [await uptime('h1'), await uptime('h2')];
    expect(second - first).toBeGreaterThan(4990);
    expect(
      Number(await runInHost({ lab: name, host: 'h2' }, ['cut', '-d.', '-f1', '/proc/uptime'])),
    ).toBeGreaterThan(4990);
  });

  it('says what is shaped, and whether it really is', async () => {
    const [shaped] = (await labStatus(name)).shaped;
    expect(shaped).toMatchObject({
      host: 'h2',
      device: 'tap1-0',
      towards: 'VM b',
      shape: '20mbit',
      inPlace: true,
    });
    expect((await labStatus(name)).shaped.map(({ towards }) => towards).sort()).toEqual([
      'VM b',
      'link to h1 (br-int)',
      'link to h2 (br-int)',
    ]);
  });

  it('has a queue for each link on the wire, which its frames pass', async () => {
    const sent = /class htb 1:1 .*\n Sent (\d+) bytes/.exec(await ssh('h1', 'tc -s class show dev underlay'));
    expect(Number(sent?.[1])).toBeGreaterThan(10_000);
  });

  const judgedGuests = async (): Promise<Parameters<typeof judge>[0]> => {
    const all = await Promise.all(lab.vms.map((vm) => readReports(vm.serialLog)));
    return all.map((one) => ({ reports: one, fromNs: one.find(({ ready }) => ready)?.uptimeNs ?? 0 }));
  };

  it('carries frames between the hosts without losing, doubling or reordering any', async () => {
    const enough = await until(
      async () => (await judgedGuests()).every((one) => one.reports.filter(({ ready }) => ready).length > 4),
      { timeoutMs: 25_000 },
    );
    expect(enough).toBe(true);
    const judgement = judge(await judgedGuests());
    expect(judgement.received).toBeGreaterThan(50);
    expect(judgement.tcpBytes).toBeGreaterThan(50_000);
    expect(isFlawless(judgement), JSON.stringify(judgement)).toBe(true);
  });

  it('loses no frame while other bridges, tunnels and ports come and go on its hosts', async () => {
    const network = await DropWatch.begin(lab);
    const before = (await judgedGuests()).map(({ reports }) => reports.at(-1)!.uptimeNs);
    const change = `for round in $(seq 15); do
      ip tuntap add come mode tap && ip link set come up
      ovs-vsctl add-br br-come -- set bridge br-come datapath_type=netdev -- add-port br-come come \\
        -- add-port br-come vxcome -- set interface vxcome type=vxlan options:remote_ip=192.0.2.1 options:key=9
      ovs-vsctl del-br br-come && ip link delete come
    done`;
    await Promise.all(['h1', 'h2'].map((host) => ssh(host, change)));
    const atEnd = (await judgedGuests()).map(({ reports }) => reports.at(-1)!.uptimeNs);
    const judged = async (): Promise<Parameters<typeof judge>[0]> =>
      (await judgedGuests()).map(({ reports }, index) => ({ reports, fromNs: before[index]! }));
    // A number that is missing counts when 32 later ones have come.
    const settled = async (): Promise<boolean> =>
      (await judged()).every(({ reports }, index) => reports.at(-1)!.uptimeNs > atEnd[index]! + 2e9);
    expect(await until(settled, { timeoutMs: 25_000 })).toBe(true);
    expect(flawsOf(judge(await judged()), await network.drops())).toEqual([]);
  });

  it('has its judge notice a segment that was really lost, by TCP alone', async () => {
    const before = (await judgedGuests()).map(({ reports }) => reports.at(-1)!.uptimeNs);
    const judged = async () =>
      judge((await judgedGuests()).map(({ reports }, index) => ({ reports, fromNs: before[index]! })));
    // No frame fits into this queue.
    await ssh('h2', 'tc qdisc replace dev tap1-0 root bfifo limit 1b');
    const missing = async (): Promise<boolean> => (await judged()).pending > 5;
    expect(await until(missing, { timeoutMs: 20_000 })).toBe(true);
    await ssh('h2', 'tc qdisc replace dev tap1-0 root tbf rate 20mbit burst 4kb limit 1mb');
    const repeated = async (): Promise<boolean> =>
      (await judged()).disturbedStreams.some(({ from }) => from === 'a');
    expect(await until(repeated, { timeoutMs: 30_000 })).toBe(true);
    const judgement = await judged();
    expect(judgement.tcpRetransmissions).toBeGreaterThan(0);
    expect(isFlawless({ ...judgement, lost: 0, reordered: 0 })).toBe(false);
  });

  it('is refused a second time, and so is another lab in its subnet', async () => {
    await expect(labUp(file)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(/is up already/) as string,
    });
    const other = { ...file, name: `${name}-x` };
    await expect(labUp(other)).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringContaining(`used by the lab "${name}"`) as string,
    });
    expect(leftovers(other.name, [])).toEqual([]);
  });

  it('leaves nothing when it goes down, not even after a host crashed', async () => {
    const status = await labStatus(name);
    const inside = await Promise.all(
      lab.hosts.map(({ namespace }) => processesIn(`/run/netns/${namespace}`)),
    );
    const processes = (await Promise.all(inside.flat().map(identify))).filter((id) => id !== undefined);
    expect(processes.length).toBeGreaterThan(9);
    process.kill(status.hosts[0]!.pid!, 'SIGKILL');
    const broken = async (): Promise<boolean> => (await labStatus(name)).state === 'broken';
    expect(await until(broken, { timeoutMs: 10_000 })).toBe(true);
    expect((await labStatus(name)).vms[0]).toMatchObject({ name: 'a', pid: null });
    expect(await labDown(name)).toBe(true);
    expect(await Promise.all(processes.map((id: ProcessId) => isAlive(id)))).not.toContain(true);
    expect(leftovers(name, links)).toEqual([]);
    expect(await labDown(name)).toBe(false);
    await expect(labStatus(name)).rejects.toMatchObject({ code: 'not-found' });
  });
});
