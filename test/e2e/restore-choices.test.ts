import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { labStatus, readReports, runInHost, type Lab } from '../../src/lab/index.ts';
import type { LogOffsets } from '../../src/demo/guests.ts';
import { until } from '../../src/lab/processes.ts';
import { experiment, restoreResult, type RestoreResult } from '../../src/protocol/resources.ts';
import { type Bench, destroyVms, runStates, startBench, stopBench } from './harness.ts';
import { pidsOf, untilSettled } from './host-view.ts';

const bridge = 'br-int';

describe('the choices of a restore', { timeout: 180_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let id: string;

  beforeAll(async () => {
    ({ lab, bench } = await startBench(`name: choices-${process.pid}
management: 198.18.116.0/24
underlay: 198.18.117.0/24
hosts: [{ name: h1 }, { name: h2 }]
vms:
  - { name: a, host: h1, memoryMiB: 96 }
  - { name: b, host: h2, memoryMiB: 96 }
  - { name: c, host: h1, memoryMiB: 96 }
`));
    id = await bench.snapshot();
  }, 300_000);
  afterAll(async () => {
    await stopBench(bench, lab);
  }, 60_000);
  beforeEach(async () => {
    if ((await runStates(lab)).some((state) => state !== 'running')) await restore({ replace: true });
  });

  async function restore(body: unknown, of = id): Promise<RestoreResult> {
    const ended = await bench.operate('POST', `/v1/snapshots/${of}/restore`, body);
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    return restoreResult.parse(ended.result);
  }
  const pids = async () =>
    new Map((await labStatus(lab.name)).vms.map(({ name, pid }) => [name, pid] as const));
  const state = async () => (await bench.server.client.json('GET', bench.path, experiment)).state;
  const on = (host: string, ...command: string[]) => runInHost({ lab: lab.name, host }, command);
  const lastUptimeNs = async (name: string) => {
    const { serialLog } = lab.vms.find((vm) => vm.name === name)!;
    return (await readReports(serialLog, [{}])).at(-1)!.uptimeNs;
  };

  it('touches nothing on a dry run, and tells what would be destroyed', async () => {
    const before = await pids();
    const result = await restore({ dryRun: true });
    expect(result).toMatchObject({ dryRun: true, vms: 3, clock: null });
    expect(result.destroyed.map(({ vm }) => vm).sort()).toEqual(['a', 'b', 'c']);
    expect(await pids()).toEqual(before);
    expect(await runStates(lab)).toEqual(['running', 'running', 'running']);
    await untilSettled(lab, 1_000);
  });

  it('restores some VMs while the others run on, and warns', async () => {
    const before = await pids();
    const since = await bench.guests.offsets();
    const result = await restore({ replace: true, vms: ['a'] });
    expect(result.vms).toBe(1);
    expect(result.destroyed).toEqual([{ host: 'h1', vm: 'a' }]);
    expect(result.warnings).toEqual([expect.stringMatching(/^only a of 3 VMs/)]);
    const after = await pids();
    expect([after.get('b'), after.get('c')]).toEqual([before.get('b'), before.get('c')]);
    expect(after.get('a')).not.toBe(before.get('a'));
    await bench.guests.waitForReports(since, 2);
  });

  it('says that it has no such VM', async () => {
    const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`, { replace: true, vms: ['z'] });
    expect(ended).toMatchObject({ state: 'failed', error: { code: 'not-found' } });
    expect(ended.error?.detail).toContain('nothing was touched: the experiment is as it was before');
  });

  it('leaves time stopped when asked to, until the experiment is resumed', async () => {
    const result = await restore({ replace: true, paused: true });
    expect(result.paused).toBe(true);
    expect(await state()).toBe('paused');
    expect([...(await pids()).values()]).not.toContain(null);
    const since = await bench.guests.offsets();
    const conflict = await bench
      .start('POST', `${bench.path}/snapshots`, {})
      .then(null, (error: unknown) => error);
    expect(conflict).toMatchObject({ code: 'conflict' });
    // No guest has said anything since.
    expect(await bench.guests.offsets()).toEqual(since);
    const resumed = await bench.operate('POST', `${bench.path}/resume`);
    expect(resumed).toMatchObject({ state: 'succeeded' });
    expect(await state()).toBe('running');
    await bench.guests.waitForReports(since, 2);
  });

  it('restores one snapshot ten times at once after another', async () => {
    for (let time = 0; time < 10; time++) {
      const result = await restore({ replace: true });
      expect(result.destroyed).toHaveLength(3);
      expect(await runStates(lab)).toEqual(['running', 'running', 'running']);
    }
    const since = await bench.guests.offsets();
    await bench.guests.waitForReports(since, 2);
  });

  it('hides the time that has passed, and sets guests to now when asked to, whatever was hidden before', async () => {
    // Nothing is hidden from them any more.
    await restore({ replace: true, clock: 'advance' });
    const restored = await bench.guests.offsets();
    await bench.guests.waitForReports(restored, 1);
    // Before the cut: what a guest says during the save is undone with it.
    const earlierNs = await lastUptimeNs('a');
    const moment = await bench.snapshot();
    const hidden = await restore({ replace: true }, moment);
    expect(hidden.clock).toMatchObject({ mode: 'hidden', advancedMs: 0, behindMs: null });
    expect(hidden.clock!.elapsedMs).toBeGreaterThan(0);

    const later = await bench.snapshot();
    const advanced = await restore({ replace: true, clock: 'advance' }, later);
    // Nor does what they said while they were still to be replaced count.
    const since = await bench.guests.offsets();
    await bench.guests.waitForReports(since, 1);
    const { clock } = advanced;
    // What the first restore hid, and what has passed since the second snapshot.
    expect(clock!.advancedMs).toBeCloseTo(clock!.elapsedMs + hidden.clock!.elapsedMs, 3);
    expect(clock!.behindMs).toBeGreaterThan(0);
    // By what the guest says, it went on at least as far as the result tells.
    expect(((await lastUptimeNs('a')) - earlierNs) / 1e6).toBeGreaterThan(clock!.advancedMs);
  });

  it('brings a VM back on another host of the experiment, once it runs no more where it was', async () => {
    const moved = { vms: ['a'], map: { h1: 'h2' } };
    const refused = await bench.operate('POST', `/v1/snapshots/${id}/restore`, moved);
    expect(refused).toMatchObject({ state: 'failed', error: { code: 'conflict' } });
    expect(refused.error?.detail).toContain('VM a runs on host h1');
    process.kill((await pids()).get('a')!, 'SIGKILL');
    try {
      const since = await bench.guests.offsets();
      const result = await restore(moved);
      expect(result.warnings.join()).toMatch(/only a of 3 VMs.*host h2: the VMs come from another host/s);
      // Its log is written on the other host now; the others hear it by the tunnel.
      expect(await pidsOf(lab, 'h2', 'qemu')).toHaveLength(2);
      const others = new Map([...since].filter(([name]) => name !== 'a'));
      await until(async () => (await reached('b', others)) === 2, { timeoutMs: 30_000 });
    } finally {
      for (const pid of await pidsOf(lab, 'h2', 'qemu')) process.kill(pid, 'SIGKILL');
      await on('h2', 'ip', 'link', 'delete', 'tap0-0');
      await destroyVms(lab);
    }
  });

  it('rebuilds what a reboot of a host takes away', async () => {
    const since = await bench.guests.offsets();
    await bench.guests.waitForReports(since, 1);
    const before = await bench.moment();
    const moment = await bench.snapshot();
    await destroyVms(lab);
    await reboot('h1');
    const atRestore = await bench.guests.offsets();
    const { warnings } = await restore({}, moment);
    expect(warnings).toEqual([
      expect.stringMatching(`host h1: bridge ${bridge} was gone and has been made again`),
    ]);
    await bench.guests.waitForReports(atRestore, 3);
    const judgement = await bench.guests.judge([{ from: since, to: before }, { from: atRestore }], before);
    expect(await bench.flaws(judgement)).toEqual([]);
  });

  /** How many peers a guest reaches by the newest of its reports since then; -1: it made none. */
  async function reached(name: string, since: LogOffsets): Promise<number> {
    const { serialLog } = lab.vms.find((vm) => vm.name === name)!;
    const reports = await readReports(serialLog, [{ from: since.get(name)! }]);
    return reports.length < 2 ? -1 : reports.at(-1)!.peersReached;
  }

  /** Open vSwitch begins with an empty database, and every tap is gone. It goes on noting all that it drops (src/lab/flaws.ts). */
  async function reboot(host: string): Promise<void> {
    const script = `
      ovs-vsctl del-br ${bridge}
      ovs-appctl -t ovs-vswitchd exit --cleanup; ovs-appctl -t ovsdb-server exit
      for i in $(seq 500); do [ -e /run/openvswitch/db.sock ] || [ -e /run/openvswitch/ovs-vswitchd.pid ] || break; sleep 0.02; done
      rm /etc/openvswitch/conf.db
      for tap in $(ls /sys/class/net | grep ^tap); do ip link delete $tap; done
      ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
      ovsdb-server /etc/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock --pidfile --detach --no-chdir --log-file -vconsole:off
      ovs-vsctl --no-wait init
      ovs-vswitchd --disable-system --pidfile --detach --no-chdir --log-file -vconsole:off
      ovs-appctl vlog/disable-rate-limit netdev_linux
    `;
    await on(host, 'sh', '-euc', script);
    expect((await on(host, 'ovs-vsctl', 'list-br')).trim()).toBe('');
  }
});
