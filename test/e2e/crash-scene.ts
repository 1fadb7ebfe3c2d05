import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { build } from 'esbuild';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';

import type { LogOffsets } from '../../src/demo/guests.ts';
import type { Lab } from '../../src/lab/index.ts';
import { snapshot as snapshotSchema } from '../../src/protocol/resources.ts';
import { BarrierWalk, type WalkStep } from './barrier-walk.ts';
import { Bench, hostPath, runStates, startLab, takeDown } from './harness.ts';
import {
  agentBundle,
  partialSnapshots,
  pidsOf,
  storePath,
  switchBuffers,
  untilCount,
  untilSettled,
} from './host-view.ts';

const leaseMs = 2_000;
/** The lease, and what a busy machine may add to it; the default lease is as long. */
export const boundMs = 10_000;

const SOURCE = `
import { BarrierWalk } from '../../test/e2e/barrier-walk.ts';
const { step, ...options } = JSON.parse(process.argv[2]);
const walk = await BarrierWalk.connect(options);
await walk.to(step);
console.log(walk.snapshot);
setInterval(() => undefined, 1000);
`;

/** A lab of two hosts whose agents and controllers are killed at steps of a barrier, and what must hold afterwards. */
export class CrashScene {
  readonly lab: Lab;
  readonly bench: Bench;
  /** Where the guests' logs stood before what is done to them. */
  before: LogOffsets = new Map();
  /** How large the buffers of the switches' sockets are while no barrier is under way. */
  buffers: ReadonlyMap<string, number> = new Map();
  readonly #directory: string;
  readonly #children: ChildProcess[] = [];
  readonly #walks: { close(): Promise<void> }[] = [];

  private constructor(lab: Lab, bench: Bench, directory: string) {
    this.lab = lab;
    this.bench = bench;
    this.#directory = directory;
  }

  /** Makes one for the tests of a file, which clean up after themselves. */
  static forTests(name: string): () => CrashScene {
    let scene: CrashScene | undefined;
    beforeAll(async () => {
      scene = await CrashScene.#start(name);
    });
    afterEach(() => scene?.endTest());
    afterAll(() => scene?.end());
    return () => {
      if (scene === undefined) throw new Error('the lab is not up');
      return scene;
    };
  }

  static async #start(name: string): Promise<CrashScene> {
    const directory = join(import.meta.dirname, `../../dist/test-${name}-${process.pid}`);
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'controller.ts'), SOURCE);
    const options = { bundle: true, platform: 'node', format: 'esm', packages: 'external' } as const;
    const entryPoints = [join(directory, 'controller.ts')];
    await build({ ...options, entryPoints, outfile: join(directory, 'controller.mjs') });
    const lab = await startLab(name);
    const scene = new CrashScene(lab, await Bench.start(lab), directory);
    await scene.bench.guests.waitForReports(await scene.bench.guests.offsets(), 3);
    scene.buffers = await switchBuffers(lab);
    // The server's own agents stay, idle.
    await scene.bench.snapshot();
    return scene;
  }

  private async endTest(): Promise<void> {
    for (const child of this.#children.splice(0)) child.kill('SIGKILL');
    await Promise.all(this.#walks.splice(0).map((walk) => walk.close()));
    // The server's own are left, and no tracer, which would look like an agent.
    for (const { name } of this.lab.hosts) {
      await untilCount(this.lab, name, 'agent', 1);
      await untilCount(this.lab, name, 'guardian', 1);
    }
  }

  private async end(): Promise<void> {
    await this.bench.server.stop();
    await takeDown(this.lab);
    await rm(this.#directory, { recursive: true, force: true });
  }

  get options() {
    return { hosts: ['h1', 'h2'], sshConfig: this.lab.sshConfig, bundle: agentBundle, leaseMs };
  }

  /** Closed when the test ends. */
  keep<Walk extends { close(): Promise<void> }>(walk: Walk): Walk {
    this.#walks.push(walk);
    return walk;
  }

  /** Walks to a step. @returns the agents of the walk in h1, told from the server's own */
  async walkTo(step: WalkStep): Promise<{ walk: BarrierWalk; agents: number[]; guardians: number[] }> {
    this.before = await this.bench.moment();
    const others = await this.#agentsAndGuardians();
    const walk = this.keep(await BarrierWalk.connect(this.options));
    const all = await this.#agentsAndGuardians();
    await walk.to(step);
    const own = (key: 'agents' | 'guardians') => all[key].filter((pid) => !others[key].includes(pid));
    return { walk, agents: own('agents'), guardians: own('guardians') };
  }

  async #agentsAndGuardians() {
    const { lab } = this;
    return { agents: await pidsOf(lab, 'h1', 'agent'), guardians: await pidsOf(lab, 'h1', 'guardian') };
  }

  /** A process of its own that walks to a step and stays there. */
  async startController(step: WalkStep): Promise<ChildProcess> {
    this.before = await this.bench.moment();
    const program = join(this.#directory, 'controller.mjs');
    const child = spawn(process.execPath, [program, JSON.stringify({ ...this.options, step })], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#children.push(child);
    const ended = once(child, 'exit').then(() => {
      throw new Error('the controller ended too early');
    });
    await Promise.race([once(createInterface({ input: child.stdout }), 'line'), ended]);
    ended.catch(() => undefined);
    return child;
  }

  /** Everything runs, nothing is left, the guests have lost nothing, and the next snapshot is as good as any. */
  async expectAllWell(snapshot?: string, timeLine: { from?: LogOffsets } = {}): Promise<void> {
    const { lab, bench } = this;
    expect(await untilSettled(lab, boundMs)).toBeLessThan(boundMs);
    expect(await runStates(lab)).toEqual(['running', 'running']);
    for (const { name } of lab.hosts) await untilCount(lab, name, 'qemu', 1);
    expect(await partialSnapshots(lab)).toEqual([]);
    expect(await switchBuffers(lab)).toEqual(this.buffers);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    expect(await bench.datagramFlaws(await bench.guests.judge([timeLine], this.before))).toEqual([]);
    const id = await bench.snapshot();
    const taken = await bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshotSchema);
    expect(taken).toMatchObject({ state: 'sealed', methods: ['fork'] });
    await bench.operate('DELETE', `/v1/snapshots/${id}`);
    expect(await switchBuffers(lab)).toEqual(this.buffers);
    if (snapshot === undefined) return;
    // Sealed by the agents, and known to no controller.
    for (const { name } of lab.hosts)
      await rm(join(hostPath(lab, name, storePath), snapshot), { recursive: true, force: true });
  }
}
