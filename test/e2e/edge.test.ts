import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { labDown, labUp, parseLabFile, runInHost, type Lab } from '../../src/lab/index.ts';
import { readBpfPrograms } from '../../src/native/bpf-objects.ts';
import { experiment as experimentSchema, snapshot as snapshotSchema } from '../../src/protocol/resources.ts';
import type { Snapshot } from '../../src/protocol/resources.ts';
import { Bench, hostPath, runStates } from './harness.ts';
import { partialSnapshots, pidsOf, untilSettled } from './host-view.ts';
import { Talker, until } from './talker.ts';

const intentPath = '/run/staghorn/barriers';
const bridge = 'br-int';
const port = 'ext-edge0';
const everyMs = 4;
const boundMs = 20_000;

describe('an experiment that touches the outside', { timeout: 90_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let talker: Talker;
  const cleanups: (() => unknown)[] = [];

  beforeAll(async () => {
    lab = await labUp(
      parseLabFile(`name: edge-${process.pid}
management: 198.18.70.0/24
underlay: 198.18.71.0/24
hosts: [{ name: h1 }]
vms:
  - { name: a, host: h1, memoryMiB: 96, nics: [{ switch: ${bridge}, ip: 10.77.0.11 }] }
  - { name: b, host: h1, memoryMiB: 96 }
`),
    );
    bench = await Bench.start(lab);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    const addresses = { target: '10.77.0.11', address: '10.77.0.200' };
    talker = await Talker.join({ lab, host: 'h1', bridge, port, ...addresses });
    await talker.meet();
  });
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
  });
  afterAll(async () => {
    await talker?.leave();
    await bench?.server.stop();
    if (lab !== undefined) await labDown(lab.name);
  });

  /** Registers the lab as an experiment with external ports; returns its path. */
  async function register(
    name: string,
    changes: Record<string, unknown>,
    external = [port],
  ): Promise<string> {
    const { hosts } = JSON.parse(await readFile(lab.experimentFile, 'utf8')) as { hosts: object[] };
    const body = { name, hosts: hosts.map((host) => ({ ...host, external })), ...changes };
    await bench.server.client.json('POST', '/v1/experiments', experimentSchema, { body });
    cleanups.push(() => bench.server.client.send('DELETE', `/v1/experiments/${name}`));
    return `/v1/experiments/${name}`;
  }

  async function snapshotOf(path: string): Promise<Snapshot> {
    const ended = await bench.operate('POST', `${path}/snapshots`, { method: 'stop-copy' });
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    const id = ended.snapshot!;
    cleanups.push(() => bench.operate('DELETE', `/v1/snapshots/${id}`));
    return bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshotSchema);
  }

  const pause = async (path: string) =>
    expect(await bench.operate('POST', `${path}/pause`)).toMatchObject({ state: 'succeeded', error: null });
  const resume = async (path: string) =>
    expect(await bench.operate('POST', `${path}/resume`)).toMatchObject({ state: 'succeeded', error: null });
  const whyNotPaused = (path: string) =>
    bench.start('POST', `${path}/resume`).then(
      () => 'it is paused',
      (error: unknown) => error,
    );
  const timeGoesOn = (path: string) => until(async () => (await stateOf(path)) === 'running', 'time goes on');
  const stateOf = async (path: string) =>
    (await bench.server.client.json('GET', path, experimentSchema)).state;
  const inHost = (...argv: string[]) => runInHost({ lab: lab.name, host: 'h1' }, argv);
  const numbers = (count: number) => Array.from({ length: count }, (_, index) => index + 1);
  const upwards = (answered: readonly number[]) => answered.every((n, i) => i === 0 || n > answered[i - 1]!);

  /** The maps of what a barrier under way has in the kernel. */
  async function mapsUnderWay(): Promise<number[]> {
    const directory = hostPath(lab, 'h1', intentPath);
    const names = (await readdir(directory)).filter((name) => name.endsWith('.json'));
    const texts = await Promise.all(names.map((name) => readFile(join(directory, name), 'utf8')));
    return texts.flatMap((text) =>
      [...text.matchAll(/"(?:state|ring)MapId":(\d+)/g)].map(([, id]) => Number(id)),
    );
  }

  async function expectGone(maps: readonly number[]): Promise<void> {
    expect(maps.length).toBeGreaterThan(0);
    const using = () => readBpfPrograms().filter(({ mapIds }) => mapIds.some((id) => maps.includes(id)));
    await until(
      () => using().length === 0,
      'no program of the barrier is left',
      () => JSON.stringify(using()),
    );
    const links = await inHost('ip', '-d', 'link', 'show');
    expect(links).not.toMatch(/xdp/);
    expect(await inHost('tc', 'qdisc', 'show')).not.toMatch(/clsact/);
  }

  async function expectAllRun(): Promise<void> {
    await untilSettled(lab, boundMs);
    expect(await runStates(lab)).toEqual(['running', 'running']);
    expect(await partialSnapshots(lab)).toEqual([]);
  }

  it('keeps at the port what comes in while time stands still, and lets it in, in order', async () => {
    const path = await register('held', {});
    const before = await bench.moment();
    talker.start({ everyMs });
    const taken = await snapshotOf(path);
    const sent = talker.sent;
    expect(await talker.stop()).toEqual(numbers(sent));
    expect(taken.external).toMatchObject([{ host: 'h1', port, dropped: 0 }]);
    expect(taken.external[0]!.held).toBeGreaterThan(0);
    expect(taken.warnings).toEqual([]);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    expect(await bench.flaws(await bench.guests.judge([{ from: before }], before))).toEqual([]);
  });

  it('drops what comes in while time stands still if it is told to, and says how much', async () => {
    const path = await register('dropped', { externalFrames: 'drop' });
    const repliesBefore = talker.arpReplies;
    talker.start({ everyMs });
    const taken = await snapshotOf(path);
    const [{ dropped, held } = { dropped: 0, held: 0 }] = taken.external;
    expect(dropped).toBeGreaterThan(0);
    expect(held).toBe(0);
    const sent = talker.sent;
    const answered = await talker.stop({ someLost: true });
    const lost = sent - answered.length;
    expect(lost).toBeGreaterThan(0);
    expect(lost).toBeLessThanOrEqual(dropped);
    // The guest may have asked for the station's hardware address, and the answer may be among what was dropped.
    expect(lost).toBeGreaterThanOrEqual(dropped - (talker.arpReplies - repliesBefore));
    expect(upwards(answered)).toBe(true);
  });

  it('lets in what comes while time stands still if it is told to: it is in flight like any other frame', async () => {
    const path = await register('passed', { externalFrames: 'pass' });
    talker.start({ everyMs: 20 });
    await pause(path);
    const sentBefore = talker.sent;
    await until(() => talker.sent > sentBefore + 5, 'pings were sent while time stood still');
    await resume(path);
    const sent = talker.sent;
    expect(await talker.stop()).toEqual(numbers(sent));
  });

  it('warns of a port that nobody has told of', async () => {
    const taken = await snapshotOf(bench.path);
    expect(taken.warnings).toEqual([expect.stringMatching(`^host h1: port ${port} belongs to no VM`)]);
    expect(taken.external).toEqual([]);
  });

  it.each([
    ['nowhere0', 'does not exist on this host'],
    ['lo', 'is on no switch of this host'],
    [bridge, 'is an internal port of the switch'],
  ])('refuses external port %s, which %s', async (name, why) => {
    const ended = await bench.operate('POST', `${await register('unfit', {}, [name])}/snapshots`, {});
    expect(ended).toMatchObject({
      state: 'failed',
      error: { code: 'network-unfit', host: 'h1', port: name },
    });
    expect(ended.error!.detail).toContain(why);
    await expectAllRun();
  });

  it('leaves nothing in the kernel after a pause, whatever was held', async () => {
    const path = await register('clean', {});
    talker.start({ everyMs });
    await pause(path);
    const maps = await mapsUnderWay();
    expect(maps).toHaveLength(4);
    await resume(path);
    await expectGone(maps);
    const sent = talker.sent;
    expect(await talker.stop()).toEqual(numbers(sent));
  });

  it('lets in what a killed agent held', async () => {
    const path = await register('killed', {});
    talker.start({ everyMs });
    await pause(path);
    const maps = await mapsUnderWay();
    const sentBefore = talker.sent;
    await until(() => talker.sent > sentBefore + 50, 'pings were held');
    for (const pid of await pidsOf(lab, 'h1', 'agent')) process.kill(pid, 'SIGKILL');
    const sent = talker.sent;
    expect((await talker.stop()).slice(0, sent)).toEqual(numbers(sent));
    await expectAllRun();
    await expectGone(maps);
  });

  describe('whose network is changed while time stands still', () => {
    const changes: [string, string[], string[], RegExp][] = [
      [
        'a port is added',
        ['ovs-vsctl', 'add-port', bridge, 'new0', '--', 'set', 'interface', 'new0', 'type=internal'],
        ['ovs-vsctl', 'del-port', bridge, 'new0'],
        /new0 was added to br-int/,
      ],
      [
        'a port gets another VLAN',
        ['ovs-vsctl', 'set', 'port', port, 'tag=77'],
        ['ovs-vsctl', 'clear', 'port', port, 'tag'],
        new RegExp(`${port} was given other VLANs`),
      ],
      [
        'a port is removed',
        ['ovs-vsctl', 'del-port', bridge, port],
        ['ovs-vsctl', 'add-port', bridge, port],
        new RegExp(`${port} was removed from br-int`),
      ],
    ];

    it.each(changes)('says so when %s, and everything goes on', async (_what, change, back, words) => {
      const path = await register('changed', {});
      const before = await bench.moment();
      await pause(path);
      const maps = await mapsUnderWay();
      cleanups.push(() => inHost(...back));
      await inHost(...change);
      await timeGoesOn(path);
      expect(await whyNotPaused(path)).toMatchObject({
        code: 'network-changed',
        message: expect.stringMatching(words) as string,
      });
      await expectAllRun();
      await expectGone(maps);
      await bench.guests.waitForReports(await bench.guests.offsets(), 2);
      expect(await bench.flaws(await bench.guests.judge([{ from: before }], before))).toEqual([]);
    });

    it('goes on watching nothing when time goes on', async () => {
      const path = await register('after', {});
      await pause(path);
      await resume(path);
      await inHost('ovs-vsctl', 'set', 'port', port, 'tag=78');
      await inHost('ovs-vsctl', 'clear', 'port', port, 'tag');
      expect((await snapshotOf(path)).warnings).toEqual([]);
    });
  });

  it('goes on by itself before its buffer is full, and has lost and reordered nothing', async () => {
    const path = await register('flooded', { frameBufferBytes: 1024 * 1024 });
    await pause(path);
    const maps = await mapsUnderWay();
    talker.start({ everyMs: 1, bytes: 1400 });
    await timeGoesOn(path);
    expect(await whyNotPaused(path)).toMatchObject({
      code: 'frame-buffer-full',
      message: expect.stringMatching(/of the 1048576 bytes/) as string,
    });
    const sent = talker.sent;
    expect(sent).toBeGreaterThan(400);
    expect((await talker.stop()).slice(0, sent)).toEqual(numbers(sent));
    await expectAllRun();
    await expectGone(maps);
  });

  it('says at once that a size of the buffer cannot be had', async () => {
    for (const frameBufferBytes of [1_000_000, 512 * 1024, 2 ** 31, 3 * 1024 * 1024]) {
      await expect(register('odd', { frameBufferBytes })).rejects.toMatchObject({ code: 'invalid-input' });
    }
  });
});
