import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { runInHost, type Lab } from '../../src/lab/index.ts';
import { restoreResult, snapshot, verifyResult } from '../../src/protocol/resources.ts';
import { type Bench, destroyVms, hostPath, startBench, stopBench } from './harness.ts';
import { storePath } from './host-view.ts';

const bridge = 'br-int';
/** Stations that never speak again: only a snapshot can know where they are. */
const silent = { near: '02:00:00:00:0a:01', far: '02:00:00:00:0a:02' };
/** Of VM a, as the lab names it. */
const tap = 'tap0-0';
const stranger = '02:00:00:00:0a:99';

describe('the switches of an experiment on two hosts', { timeout: 120_000 }, () => {
  let lab: Lab;
  let bench: Bench;

  beforeAll(async () => {
    ({ lab, bench } = await startBench(`name: switches-${process.pid}
management: 198.18.68.0/24
underlay: 198.18.69.0/24
hosts: [{ name: h1 }, { name: h2 }]
networks: [{ name: lan, vlan: 10 }]
vms:
  - { name: a, host: h1, memoryMiB: 96, nics: [{ shape: { rate: 8mbit, burst: 4kb } }] }
  - { name: b, host: h2, memoryMiB: 96 }
`));
  });
  afterAll(async () => {
    await stopBench(bench, lab);
  });

  const on = (host: string, command: string) => runInHost({ lab: lab.name, host }, command.split(' '));
  const get = async (id: string) => bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshot);

  /** The ports of the bridge by name, with their OpenFlow numbers. */
  async function ports(host: string): Promise<Map<string, number>> {
    const names = (await on(host, `ovs-vsctl list-ports ${bridge}`)).trim().split('\n');
    const numbers = names.map((name) => on(host, `ovs-vsctl get interface ${name} ofport`));
    return new Map((await Promise.all(numbers)).map((number, place) => [names[place]!, Number(number)]));
  }
  const tunnelOf = async (host: string) => [...(await ports(host)).keys()].find((name) => name !== tap)!;

  /** Lets a station speak once in VLAN 10. */
  async function speak(host: string, port: string, mac: string, tagged: boolean): Promise<void> {
    const tag = tagged ? '8100000a' : '';
    const frame = `02000000ffff${mac.replaceAll(':', '')}${tag}88b6`.padEnd(120, '0');
    await on(host, `ovs-ofctl packet-out ${bridge} ${(await ports(host)).get(port)} NORMAL ${frame}`);
  }

  async function whereIs(host: string, mac: string): Promise<string | null> {
    const row = (await on(host, `ovs-appctl fdb/show ${bridge}`))
      .split('\n')
      .find((line) => line.includes(mac));
    const [, port, vlan] = /^ *(\d+) +(\d+)/.exec(row ?? '') ?? [];
    const name = [...(await ports(host))].find(([, number]) => number === Number(port))?.[0];
    return row === undefined ? null : `${name} ${vlan}`;
  }

  async function restore(id: string): Promise<string[]> {
    const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`);
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    return restoreResult.parse(ended.result).warnings;
  }

  /** How the guests fare across a snapshot, whatever is done to the host then, and a restore. */
  async function acrossRestore(meanwhile: (id: string) => Promise<void>) {
    const since = await bench.guests.offsets();
    await bench.guests.waitForReports(since, 1);
    const before = await bench.moment();
    const id = await bench.snapshot();
    await destroyVms(lab);
    await meanwhile(id);
    const atRestore = await bench.guests.offsets();
    const warnings = await restore(id);
    await bench.guests.waitForReports(atRestore, 3);
    const judgement = await bench.guests.judge([{ from: since, to: before }, { from: atRestore }], before);
    return { id, warnings, judgement };
  }

  const settingsOf = async (host: string, tap: string) => ({
    vlan: (await on(host, `ovs-vsctl get port ${tap} tag vlan_mode trunks`)).trim(),
    ofport: (await ports(host)).get(tap),
    qos: (await on(host, `ovs-vsctl --columns=type,other_config find qos`)).trim(),
    hasQos: (await on(host, `ovs-vsctl get port ${tap} qos`)).trim() !== '[]',
    qdisc: await on(host, `tc qdisc show dev ${tap}`),
  });

  it('know after a restore what they knew at the cut, on a tap that was gone, with its VLAN, QoS and shape', async () => {
    const tunnel = await tunnelOf('h1');
    await speak('h1', tap, silent.near, false);
    await speak('h1', tunnel, silent.far, true);
    const before = await settingsOf('h1', tap);
    expect(before).toMatchObject({ vlan: expect.stringMatching(/^10/) as unknown, hasQos: true });
    expect(before.qdisc).toMatch(/tbf .*rate 8Mbit/);
    const { warnings, judgement } = await acrossRestore(async () => {
      await on('h1', `ovs-appctl fdb/flush ${bridge}`);
      await speak('h1', tunnel, silent.near, true);
      await speak('h1', tunnel, stranger, true);
      expect(await whereIs('h1', silent.near)).toBe(`${tunnel} 10`);
      await on('h1', `ovs-vsctl del-port ${bridge} ${tap}`);
      await on('h1', 'ovs-vsctl --all destroy qos');
      await on('h1', `ip link delete ${tap}`);
    });
    expect(warnings).toEqual([]);
    expect(await settingsOf('h1', tap)).toEqual(before);
    expect(await whereIs('h1', silent.near)).toBe(`${tap} 10`);
    expect(await whereIs('h1', silent.far)).toBe(`${tunnel} 10`);
    expect(await whereIs('h1', stranger)).toBeNull();
    expect(await bench.flaws(judgement)).toEqual([]);
  });

  it('come back with their flows, tunnels and ports where a whole bridge was gone', async () => {
    const add = (flow: string) => on('h1', `ovs-ofctl add-flow ${bridge} ${flow}`);
    // Where a packet is sent to it finds a flow, and is not dropped.
    await add('table=1,priority=1,actions=NORMAL');
    await add('table=1,priority=5,dl_vlan=99,actions=learn(table=2,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[])');
    await add('cookie=0x51,table=0,priority=20,ip,actions=resubmit(,1)');
    const flows = () => on('h1', `ovs-ofctl --no-stats --sort dump-flows ${bridge}`);
    const before = { flows: await flows(), ports: await ports('h1') };
    const tunnel = await tunnelOf('h1');
    await speak('h1', tunnel, silent.far, true);
    const { id, warnings, judgement } = await acrossRestore(async () => {
      await on('h1', `ovs-vsctl del-br ${bridge}`);
    });
    expect(warnings).toEqual([
      expect.stringMatching(new RegExp(`^host h1: bridge ${bridge} was gone and has been made again`)),
    ]);
    expect({ flows: await flows(), ports: await ports('h1') }).toEqual(before);
    expect(await on('h1', `tc qdisc show dev ${tap}`)).toMatch(/tbf .*rate 8Mbit/);
    expect(await whereIs('h1', silent.far)).toBe(`${tunnel} 10`);
    expect(await bench.flaws(judgement)).toEqual([]);
    expect((await get(id)).warnings).toEqual([
      `host h1: bridge ${bridge}: flows learn other flows; those are kept as of the beginning of the snapshot`,
    ]);
  });

  it('are not restored from a file that was changed', async () => {
    const id = await bench.snapshot();
    const path = join(hostPath(lab, 'h1', storePath), id, 'bridge0.flows');
    await writeFile(path, (await readFile(path, 'utf8')).replace('NORMAL', 'normal'));
    const { result } = await bench.operate('POST', `/v1/snapshots/${id}/verify`);
    expect(verifyResult.parse(result)).toMatchObject({
      ok: false,
      problems: [expect.stringMatching(/^host h1: .*bridge0\.flows does not have the checksum/)],
    });
    const refused = await bench.operate('POST', `/v1/snapshots/${id}/restore`, { replace: true });
    expect(refused).toMatchObject({ state: 'failed', error: { code: 'snapshot-damaged', host: 'h1' } });
  });
});
