import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import type { LogOffsets } from '../../src/demo/guests.ts';
import type { Lab } from '../../src/lab/index.ts';
import { snapshot as snapshotSchema } from '../../src/protocol/resources.ts';
import { copyName } from '../../src/store/part-names.ts';
import { BarrierWalk, walkSteps, type WalkStep } from './barrier-walk.ts';
import { RestoreWalk } from './restore-walk.ts';
import { Bench, hostPath, runStates, startLab, takeDown } from './harness.ts';
import {
  agentBundle,
  manifestSha256,
  partialSnapshots,
  pidsOf,
  storePath,
  switchBuffers,
  untilCount,
  untilSettled,
} from './host-view.ts';

const leaseMs = 2_000;
/** The lease, and what a busy machine may add to it; the default lease is as long. */
const boundMs = 10_000;

const directory = join(import.meta.dirname, `../../dist/test-crash-${process.pid}`);
const program = join(directory, 'controller.mjs');
const SOURCE = `
import { BarrierWalk } from '../../test/e2e/barrier-walk.ts';
const { step, ...options } = JSON.parse(process.argv[2]);
const walk = await BarrierWalk.connect(options);
await walk.to(step);
console.log(walk.snapshot);
setInterval(() => undefined, 1000);
`;

describe('whoever is killed at any step of the barrier', { timeout: 60_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let before: LogOffsets;
  let buffers: Map<string, number>;
  const children: ChildProcess[] = [];
  const walks: { close(): Promise<void> }[] = [];

  beforeAll(async () => {
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'controller.ts'), SOURCE);
    const options = { bundle: true, platform: 'node', format: 'esm', packages: 'external' } as const;
    await build({ ...options, entryPoints: [join(directory, 'controller.ts')], outfile: program });
    lab = await startLab('crash');
    bench = await Bench.start(lab);
    await bench.guests.waitForReports(await bench.guests.offsets(), 3);
    buffers = await switchBuffers(lab);
    // The server's own agents stay, idle.
    await bench.snapshot();
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    await Promise.all(walks.splice(0).map((walk) => walk.close()));
    // The server's own are left, and no tracer, which would look like an agent.
    for (const { name } of lab.hosts) {
      await untilCount(lab, name, 'agent', 1);
      await untilCount(lab, name, 'guardian', 1);
    }
  });
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
    await rm(directory, { recursive: true, force: true });
  });

  const options = () => ({
    hosts: ['h1', 'h2'],
    sshConfig: lab.sshConfig,
    bundle: agentBundle,
    leaseMs,
  });

  /** Walks to a step. @returns the agents of the walk in h1, told from the server's own */
  async function walkTo(
    step: WalkStep,
  ): Promise<{ walk: BarrierWalk; agents: number[]; guardians: number[] }> {
    before = await bench.moment();
    const others = await agentsAndGuardians();
    const walk = await BarrierWalk.connect(options());
    walks.push(walk);
    const all = await agentsAndGuardians();
    await walk.to(step);
    const own = (key: 'agents' | 'guardians') => all[key].filter((pid) => !others[key].includes(pid));
    return { walk, agents: own('agents'), guardians: own('guardians') };
  }

  async function agentsAndGuardians() {
    return { agents: await pidsOf(lab, 'h1', 'agent'), guardians: await pidsOf(lab, 'h1', 'guardian') };
  }

  async function startController(step: WalkStep): Promise<ChildProcess> {
    before = await bench.moment();
    const child = spawn(process.execPath, [program, JSON.stringify({ ...options(), step })], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    children.push(child);
    const ended = once(child, 'exit').then(() => {
      throw new Error('the controller ended too early');
    });
    await Promise.race([once(createInterface({ input: child.stdout }), 'line'), ended]);
    ended.catch(() => undefined);
    return child;
  }

  /** Everything runs, nothing is left, the guests have lost nothing, and the next snapshot is as good as any. */
  async function expectAllWell(snapshot?: string, timeLine: { from?: LogOffsets } = {}): Promise<void> {
    expect(await untilSettled(lab, boundMs)).toBeLessThan(boundMs);
    expect(await runStates(lab)).toEqual(['running', 'running']);
    for (const { name } of lab.hosts) await untilCount(lab, name, 'qemu', 1);
    expect(await partialSnapshots(lab)).toEqual([]);
    expect(await switchBuffers(lab)).toEqual(buffers);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    expect(await bench.datagramFlaws(await bench.guests.judge([timeLine], before))).toEqual([]);
    const id = await bench.snapshot();
    const taken = await bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshotSchema);
    expect(taken).toMatchObject({ state: 'sealed', methods: ['fork'] });
    await bench.operate('DELETE', `/v1/snapshots/${id}`);
    expect(await switchBuffers(lab)).toEqual(buffers);
    if (snapshot === undefined) return;
    // Sealed by the agents, and known to no controller.
    for (const { name } of lab.hosts)
      await rm(join(hostPath(lab, name, storePath), snapshot), { recursive: true, force: true });
  }

  for (const step of walkSteps) {
    it(`after "${step}": a killed agent is put right by its guardian, the other host by its lease`, async () => {
      const { walk, agents } = await walkTo(step);
      expect(agents).toHaveLength(1);
      const ports = [...buffers.keys()];
      const widened = await switchBuffers(lab);
      expect(ports.map((port) => widened.get(port)! > buffers.get(port)!)).toEqual(
        ports.map(() => step !== 'commit'),
      );
      for (const pid of agents) process.kill(pid, 'SIGKILL');
      await expectAllWell(walk.snapshot);
    });
  }

  for (const step of ['arm', 'cut', 'save', 'resume', 'storing', 'commit'] as const) {
    it(`after "${step}": a killed controller leaves agents that let everything go on`, async () => {
      const child = await startController(step);
      child.kill('SIGKILL');
      await expectAllWell();
    });
  }

  for (const step of ['arm', 'save', 'resume'] as const) {
    it(`after "${step}": a controller that hangs loses its lease`, async () => {
      const child = await startController(step);
      child.kill('SIGSTOP');
      await expectAllWell();
    });
  }

  for (const step of ['cut', 'save', 'store'] as const) {
    it(`after "${step}": with the guardian killed too, the next agent recovers and says so`, async () => {
      const { walk, agents, guardians } = await walkTo(step);
      // The guardian first: it would act as soon as its agent is gone.
      for (const pid of [...guardians, ...agents]) process.kill(pid, 'SIGKILL');
      const next = await BarrierWalk.connect({ ...options(), hosts: ['h1'] });
      walks.push(next);
      expect(next.hosts[0]?.recovered).toMatch(
        new RegExp(`barrier ${walk.barrier}: 1 VMs run, every gate is open`),
      );
      await expectAllWell();
    });
  }

  describe('and at any step of a restore', () => {
    let stored: string;

    beforeAll(async () => {
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
      const walk = await RestoreWalk.connect({ ...options(), snapshot: taken, manifests });
      walks.push(walk);
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
      it(`killed at "${step}", an agent leaves no VM that was loaded and never ran`, async () => {
        for (const pid of await restoreTo(step)) process.kill(pid, 'SIGKILL');
        await untilSettled(lab, boundMs);
        for (const { name } of lab.hosts) await untilCount(lab, name, 'qemu', 0);
        expect(await runStates(lab)).toEqual(['gone', 'gone']);
        const left = await switchBuffers(lab);
        for (const [port, bytes] of left) expect([port, bytes]).toEqual([port, buffers.get(port)]);
        await expectRestorable();
      });
    }

    it('killed after "resume", an agent leaves VMs that run, and the other host none that stands', async () => {
      for (const pid of await restoreTo('resume')) process.kill(pid, 'SIGKILL');
      await untilSettled(lab, boundMs);
      expect((await runStates(lab)).filter((state) => state !== 'running' && state !== 'gone')).toEqual([]);
      await expectRestorable();
    });

    for (const step of ['loading', 'resume'] as const) {
      it(`killed at "${step}" of a part that came from another host, an agent leaves none that stands`, async () => {
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

    it('is as good as new afterwards', async () => {
      const restored = await bench.guests.offsets();
      await bench.guests.waitForReports(restored, 2);
      before = await bench.moment();
      await expectAllWell(undefined, { from: restored });
    });
  });
});
