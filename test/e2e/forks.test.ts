import { existsSync } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';

import type { LogOffsets } from '../../src/demo/guests.ts';
import { runInHost, type Lab } from '../../src/lab/index.ts';
import { forkResult } from '../../src/protocol/fork.ts';
import { experiment, experimentPort, experimentVm } from '../../src/protocol/resources.ts';
import { parseManifest } from '../../src/store/manifest.ts';
import { Capture } from './capture.ts';
import { asLab, guestsOf, judgeFork, numberOf, type MadeFork } from './fork-guests.ts';
import { Bench, hostPath, startLab, takeDown } from './harness.ts';
import { storePath } from './host-view.ts';
import { Talker } from './talker.ts';

const vms = [
  { name: 'a', host: 'h1' },
  { name: 'b', host: 'h1' },
  { name: 'c', host: 'h2' },
  { name: 'd', host: 'h2' },
];
const hosts = ['h1', 'h2'];
/** VM d, on the other host than the one that pings it, and its tap. */
const target = { address: '10.77.0.4', tap: 'tap3-0' };
const forksPath = '/var/lib/staghorn/forks';

describe('forks of an experiment of four VMs on two hosts', { timeout: 240_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let id: string;
  let before: LogOffsets;
  let forks: readonly MadeFork[];
  const cleanups: (() => unknown)[] = [];

  beforeAll(async () => {
    lab = await startLab('forks', vms);
    bench = await Bench.start(lab);
    await bench.guests.waitForReports(await bench.guests.offsets(), 3);
    before = await bench.moment();
    id = await bench.snapshot();
    forks = await fork(id, { count: 2 });
  }, 240_000);
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
  });

  async function fork(snapshot: string, body: unknown): Promise<readonly MadeFork[]> {
    const ended = await bench.operate('POST', `/v1/snapshots/${snapshot}/forks`, body);
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    return forkResult.parse(ended.result).forks;
  }

  const get = <T extends z.ZodType>(path: string, schema: T) => bench.server.client.json('GET', path, schema);
  const experiments = async () => (await get('/v1/experiments', z.array(experiment))).map(({ name }) => name);
  const inHost = (host: string, ...argv: string[]) => runInHost({ lab: lab.name, host }, argv);

  /** What hosts have under names of a fork: devices, bridges and directories. */
  async function tracesOf(number: string): Promise<string[]> {
    const perHost = await Promise.all(
      hosts.map(async (host) => {
        const found = [
          await inHost(host, 'ip', '-o', 'link'),
          await inHost(host, 'ovs-vsctl', 'show'),
          await inHost(host, 'ps', '-eo', 'args'),
        ];
        const names = found.join('\n').match(new RegExp(`[\\w-]+\\.f${number}\\b`, 'g')) ?? [];
        const directories = await readdir(hostPath(lab, host, forksPath)).catch(() => []);
        return [...names, ...directories.filter((name) => name === `f${number}`)];
      }),
    );
    return perHost.flat();
  }

  it('are experiments of their own, of VMs that run', async () => {
    expect(forks.map((made) => made.experiment)).toEqual([`${lab.name}-fork-1`, `${lab.name}-fork-2`]);
    for (const made of forks) {
      const path = `/v1/experiments/${made.experiment}`;
      expect(await get(path, experiment)).toMatchObject({ state: 'running', fork: { snapshot: id } });
      const found = await get(`${path}/vms`, z.array(experimentVm));
      expect(found.map(({ name }) => name).sort()).toEqual(made.vms.map(({ name }) => name).sort());
      expect(found.map(({ status }) => status)).toEqual(['running', 'running', 'running', 'running']);
    }
  });

  it('have the same addresses on taps and bridges of their own', async () => {
    const portsOf = (name: string) => get(`/v1/experiments/${name}/ports`, z.array(experimentPort));
    const origin = await portsOf(lab.name);
    for (const made of forks) {
      const ports = await portsOf(made.experiment);
      const suffix = `.f${numberOf(made)}`;
      expect(ports.map(({ mac }) => mac).sort()).toEqual(origin.map(({ mac }) => mac).sort());
      expect(ports.every(({ tap }) => tap.endsWith(suffix))).toBe(true);
      expect(new Set(ports.map(({ switchPort }) => switchPort?.bridge))).toEqual(
        new Set([`br-int${suffix}`]),
      );
    }
  });

  it('leave the experiment as it is: its own VMs, which notice nothing', async () => {
    const found = await get(`${bench.path}/vms`, z.array(experimentVm));
    expect(found.map(({ name }) => name).sort()).toEqual(['a', 'b', 'c', 'd']);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    expect(await bench.flaws(await bench.guests.judge([{}], before))).toEqual([]);
  });

  it('go on from the cut without losing, doubling or reordering anything, each for itself', async () => {
    for (const made of forks) {
      await guestsOf(lab, made).waitForReports(await guestsOf(lab, made).offsets(), 2);
      const judgement = await judgeFork(lab, before, { lab, made });
      expect(judgement).toMatchObject({ guests: 4, clockJumpNs: 0 });
      expect(await bench.flaws(judgement)).toEqual([]);
    }
  });

  it('see no frame of each other, and answer under the same address', async () => {
    const suffixes = ['', ...forks.map((made) => `.f${numberOf(made)}`)];
    const namespace = lab.hosts.find(({ name }) => name === 'h2')!.namespace;
    for (const [place, suffix] of suffixes.entries()) {
      const talker = await Talker.join({
        ...{ lab, host: 'h1', bridge: `br-int${suffix}`, port: `forks-t${place}` },
        ...{ target: target.address, address: '10.77.0.200', mac: `02:00:00:0e:01:0${place}` },
      });
      cleanups.push(() => talker.leave());
      const capture = await Capture.start(
        namespace,
        suffixes.map((other) => `${target.tap}${other}`),
      );
      cleanups.push(() => capture.discard());
      await talker.meet();
      talker.start({ everyMs: 10 });
      await expect.poll(() => talker.answered.length, { timeout: 30_000 }).toBeGreaterThan(20);
      await talker.stop();
      const ofTalker = (await capture.stop()).filter(
        ({ sourceMac }) => sourceMac === `02:00:00:0e:01:0${place}`,
      );
      expect(new Set(ofTalker.map((frame) => frame.interface))).toEqual(new Set([`${target.tap}${suffix}`]));
    }
  });

  it('are stored as what differs from the snapshot that they came from, and so are forks of forks', async () => {
    const over = async ({ experiment: name }: MadeFork) => {
      const taken = await bench.operate('POST', `/v1/experiments/${name}/snapshots`, {});
      expect(taken).toMatchObject({ state: 'succeeded', error: null });
      const path = hostPath(lab, 'h1', join(storePath, taken.snapshot!, 'manifest.json'));
      const { vms: stored, needs } = parseManifest(await readFile(path, 'utf8'), path);
      return { id: taken.snapshot!, forms: new Set(stored.map(({ ram }) => ram.form)), needs };
    };
    const first = await over(forks[0]!);
    expect(first).toMatchObject({ forms: new Set(['layered']), needs: [id] });
    const [second] = (await fork(first.id, { count: 1, name: 'layered' })) as [MadeFork];
    const deep = await over(second);
    expect(deep.forms).toEqual(new Set(['layered']));
    expect(deep.needs).toEqual(expect.arrayContaining([first.id]));
    for (const snapshot of [deep.id, first.id]) await bench.operate('DELETE', `/v1/snapshots/${snapshot}`);
    await bench.server.client.send('DELETE', '/v1/experiments/layered-1?destroy=true');
  });

  it('are snapshotted, forked again and restored in place as any experiment', async () => {
    const [made] = forks as [MadeFork];
    const own = asLab(lab, made);
    const path = `/v1/experiments/${made.experiment}`;
    const atSnapshot = await guestsOf(lab, made).offsets();
    await bench.moment();
    const taken = await bench.operate('POST', `${path}/snapshots`, {});
    expect(taken).toMatchObject({ state: 'succeeded', error: null });
    const [second] = (await fork(taken.snapshot!, { count: 1, name: 'deep' })) as [MadeFork];
    expect(second.experiment).toBe('deep-1');
    await guestsOf(lab, second).waitForReports(await guestsOf(lab, second).offsets(), 2);
    expect(await bench.flaws(await judgeFork(own, atSnapshot, { lab, made: second }))).toEqual([]);
    for (const { host, pid } of await get(`${path}/vms`, z.array(experimentVm)))
      await inHost(host, 'kill', '-KILL', String(pid));
    const atRestore = await guestsOf(lab, made).offsets();
    const restored = await bench.operate('POST', `/v1/snapshots/${taken.snapshot}/restore`);
    expect(restored).toMatchObject({ state: 'succeeded', error: null });
    await guestsOf(lab, made).waitForReports(atRestore, 2);
    const ranges = [{ to: atSnapshot }, { from: atRestore }];
    expect(await bench.flaws(await guestsOf(lab, made).judge(ranges, atSnapshot))).toEqual([]);
    await bench.server.client.send('DELETE', '/v1/experiments/deep-1?destroy=true');
    await bench.operate('DELETE', `/v1/snapshots/${taken.snapshot}`);
  });

  it('stand loaded when they are to be paused, and go on from the cut when they are resumed', async () => {
    const [first, second] = (await fork(id, { count: 2, name: 'warm', paused: true })) as [
      MadeFork,
      MadeFork,
    ];
    for (const made of [first, second]) {
      const path = `/v1/experiments/${made.experiment}`;
      expect(await get(path, experiment)).toMatchObject({ state: 'paused', fork: { snapshot: id } });
      const found = await get(`${path}/vms`, z.array(experimentVm));
      expect(found.map(({ status }) => status)).not.toContain('running');
    }
    const resumed = await bench.operate('POST', `/v1/experiments/${first.experiment}/resume`);
    expect(resumed).toMatchObject({ state: 'succeeded', result: { experiment: first.experiment } });
    await guestsOf(lab, first).waitForReports(await guestsOf(lab, first).offsets(), 2);
    const judgement = await judgeFork(lab, before, { lab, made: first });
    expect(judgement).toMatchObject({ guests: 4, clockJumpNs: 0 });
    expect(await bench.flaws(judgement)).toEqual([]);
    for (const made of [first, second]) {
      await bench.server.client.send('DELETE', `/v1/experiments/${made.experiment}?destroy=true`);
      expect(await tracesOf(numberOf(made))).toEqual([]);
    }
    const many = await bench.operate('POST', `/v1/snapshots/${id}/forks`, { count: 11, paused: true });
    expect(many).toMatchObject({ state: 'failed', error: { code: 'invalid-input' } });
  });

  it('are all taken away again when one fails, and nothing else is touched', async () => {
    const damaged = await bench.snapshot();
    await damage(`${hostPath(lab, 'h2', '/var/lib/staghorn/snapshots')}/${damaged}/d.ram`);
    const known = await experiments();
    const ended = await bench.operate('POST', `/v1/snapshots/${damaged}/forks`, { count: 2 });
    expect(ended).toMatchObject({ state: 'failed', error: { code: 'snapshot-damaged' } });
    expect(ended.error?.detail).not.toMatch(/something is left/);
    expect(await experiments()).toEqual(known);
    for (const number of ['3', '4']) expect(await tracesOf(number)).toEqual([]);
    await guestsOf(lab, forks[1]!).waitForReports(await guestsOf(lab, forks[1]!).offsets(), 1);
  });

  it('are ended with all that they had, and only forks are', async () => {
    const { client } = bench.server;
    const refused = client.send('DELETE', `${bench.path}?destroy=true`);
    await expect(refused).rejects.toMatchObject({ code: 'wrong-state' });
    const [first, second] = forks as [MadeFork, MadeFork];
    expect((await tracesOf(numberOf(first))).length).toBeGreaterThan(10);
    await client.send('DELETE', `/v1/experiments/${first.experiment}?destroy=true`);
    expect(await tracesOf(numberOf(first))).toEqual([]);
    expect(existsSync(hostPath(lab, 'h1', `${forksPath}/f${numberOf(second)}`))).toBe(true);
    const running = await get(`/v1/experiments/${second.experiment}/vms`, z.array(experimentVm));
    expect(running).toHaveLength(4);
    expect(await experiments()).not.toContain(first.experiment);
  });
});

/** Changes a byte of the first page that has any. */
async function damage(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const chunk = Buffer.alloc(1024 * 1024);
    for (let at = 0; ; at += chunk.length) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
      const place = chunk.subarray(0, bytesRead).findIndex((byte) => byte !== 0);
      if (place < 0) continue;
      await file.write(Buffer.from([chunk[place]! ^ 1]), 0, 1, at + place);
      return;
    }
  } finally {
    await file.close();
  }
}
