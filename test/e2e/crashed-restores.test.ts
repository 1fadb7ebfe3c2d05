import { existsSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';

import type { Lab } from '../../src/lab/index.ts';
import { snapshot as snapshotSchema } from '../../src/protocol/resources.ts';
import { copyName } from '../../src/store/part-names.ts';
import { CrashScene, boundMs } from './crash-scene.ts';
import { hostPath, runStates, type Bench } from './harness.ts';
import { manifestSha256, pidsOf, storePath, switchBuffers, untilCount, untilSettled } from './host-view.ts';
import { RestoreWalk } from './restore-walk.ts';

describe('an agent that is killed at any step of a restore', { timeout: 60_000 }, () => {
  const scene = CrashScene.forTests('crash-restore');
  let lab: Lab;
  let bench: Bench;
  let stored: string;

  beforeAll(async () => {
    ({ lab, bench } = scene());
    stored = await bench.snapshot();
  });

  async function restoreTo(
    step: 'loading' | 'load' | 'resume',
    prepare: () => Promise<void> = () => Promise.resolve(),
  ): Promise<number[]> {
    const others = await pidsOf(lab, 'h1', 'agent');
    const taken = await bench.server.client.json('GET', `/v1/snapshots/${stored}`, snapshotSchema);
    const manifests = Object.fromEntries(
      await Promise.all(lab.hosts.map(async ({ name }) => [name, await manifestSha256(lab, name, stored)])),
    ) as Record<string, string>;
    await prepare();
    const walk = scene().keep(await RestoreWalk.connect({ ...scene().options, snapshot: taken, manifests }));
    const agents = (await pidsOf(lab, 'h1', 'agent')).filter((pid) => !others.includes(pid));
    const old = await pidsOf(lab, 'h1', 'qemu');
    await walk.to(step, async () => (await pidsOf(lab, 'h1', 'qemu')).some((pid) => !old.includes(pid)));
    return agents;
  }

  async function expectRestorable(): Promise<void> {
    const atRestore = await bench.guests.offsets();
    const restored = await bench.operate('POST', `/v1/snapshots/${stored}/restore`, { replace: true });
    expect(restored).toMatchObject({ state: 'succeeded', error: null });
    expect(await runStates(lab)).toEqual(['running', 'running']);
    await bench.guests.waitForReports(atRestore, 2);
  }

  for (const step of ['loading', 'load'] as const) {
    it(`at "${step}" leaves no VM that was loaded and never ran`, async () => {
      for (const pid of await restoreTo(step)) process.kill(pid, 'SIGKILL');
      await untilSettled(lab, boundMs);
      for (const { name } of lab.hosts) await untilCount(lab, name, 'qemu', 0);
      expect(await runStates(lab)).toEqual(['gone', 'gone']);
      for (const [port, bytes] of await switchBuffers(lab)) expect(bytes).toBe(scene().buffers.get(port));
      await expectRestorable();
    });
  }

  it('after "resume" leaves VMs that run, and the other host none that stands', async () => {
    for (const pid of await restoreTo('resume')) process.kill(pid, 'SIGKILL');
    await untilSettled(lab, boundMs);
    expect((await runStates(lab)).filter((state) => state !== 'running' && state !== 'gone')).toEqual([]);
    await expectRestorable();
  });

  for (const step of ['loading', 'resume'] as const) {
    it(`at "${step}" of a part that came from another host leaves none that stands`, async () => {
      const own = join(hostPath(lab, 'h1', storePath), stored);
      const copy = join(dirname(own), copyName(stored, await manifestSha256(lab, 'h1', stored)));
      try {
        // Known by its checksum, as one that was copied here.
        for (const pid of await restoreTo(step, () => rename(own, copy))) process.kill(pid, 'SIGKILL');
        expect(await untilSettled(lab, boundMs)).toBeLessThan(boundMs);
        if (step === 'loading') await untilCount(lab, 'h1', 'qemu', 0);
        expect((await runStates(lab)).filter((state) => !/^(running|gone)$/.test(state))).toEqual([]);
      } finally {
        if (existsSync(copy)) await rename(copy, own);
      }
      await expectRestorable();
    });
  }

  it('leaves a host as good as new', async () => {
    const restored = await bench.guests.offsets();
    await bench.guests.waitForReports(restored, 2);
    scene().before = await bench.moment();
    await scene().expectAllWell(undefined, { from: restored });
  });
});
