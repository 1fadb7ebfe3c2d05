import { readFile, readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import type { Lab } from '../../src/lab/index.ts';
import type { RamStorage } from '../../src/protocol/rpc.ts';
import { parseManifest, type HostManifest } from '../../src/store/manifest.ts';
import { allocatedBytes } from '../../src/store/snapshot-directory.ts';
import { BarrierWalk, timeoutMs } from './barrier-walk.ts';
import { Bench, destroyVms, hostPath, runStates, startLab, takeDown } from './harness.ts';
import { agentBundle, manifestSha256, storePath } from './host-view.ts';
import { RestoreWalk } from './restore-walk.ts';

const hosts = ['h1', 'h2'];
const plain: RamStorage = { compression: 'none', level: 1, maxBytesPerSecond: 0 };

describe('RAM stored over a parent', { timeout: 60_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let first: string;
  const walks: { close(): Promise<void> }[] = [];

  beforeAll(async () => {
    lab = await startLab('layers');
    bench = await Bench.start(lab);
    await bench.guests.waitForReports(await bench.guests.offsets(), 3);
    first = await bench.snapshot();
  });
  afterEach(() => Promise.all(walks.splice(0).map((walk) => walk.close())));
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
  });

  const walkOptions = () => ({ hosts, sshConfig: lab.sshConfig, bundle: agentBundle, leaseMs: 10_000 });

  async function snapshotOver(parent: string | null, ram: RamStorage = plain): Promise<BarrierWalk> {
    const walk = await BarrierWalk.connect({ ...walkOptions(), parent, ram });
    walks.push(walk);
    await walk.to('commit');
    return walk;
  }

  const partOf = (snapshot: string, host = 'h1') => hostPath(lab, host, join(storePath, snapshot));

  async function manifestOf(snapshot: string): Promise<HostManifest> {
    const path = join(partOf(snapshot), 'manifest.json');
    return parseManifest(await readFile(path, 'utf8'), path);
  }

  async function restore(snapshot: string): Promise<RestoreWalk> {
    const sums = await Promise.all(hosts.map((host) => manifestSha256(lab, host, snapshot)));
    const walk = await RestoreWalk.connect({
      ...walkOptions(),
      snapshot: { id: snapshot, vms: lab.vms },
      manifests: Object.fromEntries(hosts.map((host, index) => [host, sums[index]!])),
    });
    walks.push(walk);
    return walk;
  }

  async function expectGuestsGoOn(snapshot: string): Promise<void> {
    const since = await bench.guests.offsets();
    const walk = await restore(snapshot);
    await walk.to('resume', () => Promise.resolve(false));
    await walk.settle();
    await walk.close();
    expect(await runStates(lab)).toEqual(['running', 'running']);
    await bench.guests.waitForReports(since, 2);
  }

  async function verify(walk: BarrierWalk): Promise<string[]> {
    const { agent } = walk.hosts[0]!;
    const params = { snapshot: walk.snapshot, manifestSha256: null };
    return (await agent.client.call('verify', params, { timeoutMs })).problems;
  }

  it('holds little, and guests go on from it and from what was stored over it, also after they were destroyed', async () => {
    const second = await snapshotOver(first);
    const third = await snapshotOver(second.snapshot, { ...plain, compression: 'zstd' });
    const [{ vms, needs }, { needs: allNeeds }] = [
      await manifestOf(second.snapshot),
      await manifestOf(third.snapshot),
    ];
    expect(vms[0]!.ram.form).toBe('layered');
    expect(needs).toEqual([first]);
    expect(allNeeds).toContain(first);
    expect(await allocatedBytes(partOf(second.snapshot))).toBeLessThan(
      (await allocatedBytes(partOf(first))) / 2,
    );
    expect(await verify(third)).toEqual([]);
    await expectGuestsGoOn(second.snapshot);
    await destroyVms(lab);
    await expectGuestsGoOn(third.snapshot);
    const images = (await readdir(partOf(third.snapshot))).filter((name) => name.startsWith('rebuilt.'));
    expect(await readdir(join(partOf(third.snapshot), images[0]!))).toEqual(['a.ram']);
    // Of VMs whose RAM is mapped from an image.
    const fourth = await snapshotOver(third.snapshot);
    expect(await verify(fourth)).toEqual([]);
    await expectGuestsGoOn(fourth.snapshot);
  });

  it('is found to be damaged before anything is touched if a file of the parent is missing', async () => {
    const walk = await snapshotOver(first);
    const file = join(partOf(first), 'a.ram');
    await rename(file, `${file}.away`);
    try {
      const attempt = await restore(walk.snapshot);
      const restoring = attempt.to('load', () => Promise.resolve(false));
      await expect(restoring).rejects.toMatchObject({ code: 'snapshot-damaged' });
      expect((await verify(walk)).join()).toContain('a.ram');
      expect(await runStates(lab)).toEqual(['running', 'running']);
    } finally {
      await rename(`${file}.away`, file);
    }
  });

  it('is stored in full where the parent is missing, with a warning that says so', async () => {
    const walk = await BarrierWalk.connect({ ...walkOptions(), parent: '20200101T000000Z-abcdef' });
    walks.push(walk);
    await walk.to('arm');
    expect(walk.warnings.join()).toMatch(
      /RAM is stored in full: there is no snapshot 20200101T000000Z-abcdef/,
    );
    await walk.to('commit');
    const { vms, needs } = await manifestOf(walk.snapshot);
    expect(needs).toEqual([]);
    expect(vms[0]!.ram.form).toBe('full');
  });

  it('goes on from RAM that is compressed and has no parent', async () => {
    const id = await bench.snapshot({ compression: 'zstd', incremental: false });
    const { vms, needs } = await manifestOf(id);
    expect(needs).toEqual([]);
    expect(vms[0]!.ram.layers.map(({ number }) => number)).toEqual([1]);
    expect(await allocatedBytes(partOf(id))).toBeLessThan(await allocatedBytes(partOf(first)));
    const since = await bench.guests.offsets();
    const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`, { replace: true });
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    await bench.guests.waitForReports(since, 2);
  });
});
