import { execFileSync } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { z } from 'zod';

import { AgentPool } from '../../src/controller/hosts/agent-pool.ts';
import { sshConnector } from '../../src/controller/hosts/agent-link.ts';
import { agentBundle } from '../../src/controller/index.ts';
import { copyPart } from '../../src/controller/transfers/transfer.ts';
import type { Lab } from '../../src/lab/index.ts';
import { forkResult } from '../../src/protocol/fork.ts';
import {
  experiment,
  experimentVm,
  operation,
  snapshot,
  type Snapshot,
} from '../../src/protocol/resources.ts';
import { rolling } from '../../src/protocol/rolling.ts';
import { run } from '../cli/run.ts';
import { Bench, destroyVms, hostPath, runStates, startLab, takeDown } from './harness.ts';

const storePath = '/var/lib/staghorn/snapshots';
let lab: Lab | undefined;
let bench: Bench;
let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'staghorn-moments-'));
  lab = await startLab('moments');
  bench = await Bench.start(lab);
}, 120_000);
afterAll(async () => {
  await bench?.server.stop();
  await takeDown(lab);
  await rm(directory, { recursive: true, force: true });
});

const get = (id: string): Promise<Snapshot> =>
  bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshot);
const list = () => bench.server.client.json('GET', '/v1/snapshots', z.array(snapshot));
/** Without what is gone for users, and is kept because another snapshot reads it. */
const stored = async (host: string) =>
  (await readdir(hostPath(lab!, host, storePath))).filter((name) => !name.endsWith('.kept'));
const staghorn = async (line: string) => {
  const env = { STAGHORN_STATE_DIR: dirname(bench.server.logFile) };
  const ran = await run(bench.server.client.url, line, { env });
  if (ran.exit !== 0) throw new Error(`${line}: exit ${ran.exit}: ${ran.err}`);
  return ran.out;
};
const succeed = async (method: string, path: string, body?: unknown) => {
  const ended = await bench.operate(method, path, body);
  expect(ended.error?.detail, `${method} ${path}`).toBeUndefined();
  return ended;
};

// Each of these takes and restores snapshots of real VMs, perhaps on a busy machine.
vi.setConfig({ testTimeout: 180_000 });

describe('the tree of moments', () => {
  it('knows what each snapshot came from, also after a restore and when one in between is gone', async () => {
    const first = await bench.snapshot({ name: 'first', labels: { branch: 'main' } });
    const second = await bench.snapshot();
    await succeed('POST', `/v1/snapshots/${first}/restore`, { replace: true });
    const third = await bench.snapshot();
    const fourth = await bench.snapshot();
    expect((await get(first)).parent).toBeNull();
    expect((await get(second)).parent).toBe(first);
    expect((await get(third)).parent).toBe(first);
    await succeed('DELETE', `/v1/snapshots/${third}`);
    expect((await get(fourth)).parent).toBe(first);
    const now = await bench.server.client.json('GET', bench.path, experiment);
    expect(now.moment).toBe(fourth);
    const tree = await staghorn(`snapshots ${lab!.name} --tree`);
    expect(tree).toMatch(
      new RegExp(`^o ${first} .*"first".*branch="main"\n├─ o ${second} .*\n└─ \\* ${fourth} `),
    );
    expect(await staghorn(`snapshots --label branch=main --name f*`)).toContain(first);
    await staghorn(`edit ${second} --name side --label keep`);
    expect(await get(second)).toMatchObject({ name: 'side', labels: { keep: '' } });
    await succeed('POST', `${bench.path}/prune`, { keepLast: 1 });
    expect((await list()).map(({ id }) => id)).toEqual([first, second, fourth]);
  });
});

describe('verify', () => {
  it('loads the device states beside the running VMs, and leaves nothing of it', async () => {
    const id = await bench.snapshot({ name: 'checked' });
    const { result } = await succeed('POST', `/v1/snapshots/${id}/verify`);
    expect(result).toMatchObject({ ok: true, problems: [] });
    expect(await runStates(lab!)).toEqual(['running', 'running']);
    // A QEMU that had loaded it would have its RAM mapped.
    const left = execFileSync('sh', ['-c', `pgrep -af 'mem-path=.*${id}' || true`]).toString();
    expect(left).not.toContain('qemu-system');
  });
});

describe('an archive', () => {
  let archive: string;
  let before: Snapshot;

  it('is one file that the tar command lists', async () => {
    before = (await list()).find(({ name }) => name === 'checked')!;
    archive = join(directory, 'a.tar.zst');
    await staghorn(`export checked -o ${archive}`);
    const names = execFileSync('tar', ['--zstd', '-tf', archive]).toString().trim().split('\n');
    expect(names.slice(0, 2)).toEqual(['staghorn-archive.json', 'h1/manifest.json']);
    expect(names).toEqual(expect.arrayContaining(['h1/a.ram', 'h1/a.state', 'h2/manifest.json', 'h2/b.ram']));
    expect((await stat(archive)).mode & 0o777).toBe(0o600);
  });

  it('is not taken in where the snapshot is, nor where it is damaged or does not fit, and leaves nothing', async () => {
    await expect(staghorn(`import ${archive} --experiment ${lab!.name}`)).rejects.toThrow(/already/);
    await succeed('DELETE', `/v1/snapshots/${before.id}`);
    const left = await stored('h1');
    const others = (await list()).length;
    const cut = join(directory, 'cut');
    await writeFile(cut, await readFile(archive));
    await truncate(cut, (await stat(archive)).size - 20);
    await expect(staghorn(`import ${cut} --experiment ${lab!.name}`)).rejects.toThrow(/too early/);
    await writeFile(cut, await readFile(archive));
    const bytes = await readFile(cut);
    bytes[Math.floor(bytes.length * 0.7)]! ^= 1;
    await writeFile(cut, bytes);
    await expect(staghorn(`import ${cut} --experiment ${lab!.name}`)).rejects.toThrow(
      /damaged|checksum|cannot be read/,
    );
    const strange = `import ${archive} --experiment ${lab!.name} --map h1=h9`;
    await expect(staghorn(strange)).rejects.toThrow(/no host h9/);
    expect(await list()).toHaveLength(others);
    expect(await stored('h1')).toEqual(left);
    expect(await stored('h2')).not.toContain(before.id);
  });

  it('brings the snapshot back as it was, whole and restorable', async () => {
    await staghorn(`import ${archive} --experiment ${lab!.name}`);
    expect(await get(before.id)).toEqual(before);
    await destroyVms(lab!);
    await succeed('POST', `/v1/snapshots/${before.id}/restore`);
    expect(await runStates(lab!)).toEqual(['running', 'running']);
  });

  it('has brought a snapshot of which forks run beside the experiment', async () => {
    const { result } = await succeed('POST', `/v1/snapshots/${before.id}/forks`, { count: 1 });
    const [made] = forkResult.parse(result).forks;
    const path = `/v1/experiments/${made!.experiment}`;
    const found = await bench.server.client.json('GET', `${path}/vms`, z.array(experimentVm));
    expect(found.map(({ name, status }) => [name.replace(/\.f\d+$/, ''), status])).toEqual([
      ['a', 'running'],
      ['b', 'running'],
    ]);
    await bench.server.client.send('DELETE', `${path}?destroy=true`);
    expect(await runStates(lab!)).toEqual(['running', 'running']);
  });
});

describe('a part of a snapshot', () => {
  it('is copied to another host, once, and goes with the snapshot', async () => {
    const id = (await list()).find(({ name }) => name === 'checked')!.id;
    const connect = sshConnector(agentBundle());
    const pool = new AgentPool({ ssh: connect, amqp: connect }, silent);
    try {
      const definition = JSON.parse(await readFile(lab!.experimentFile, 'utf8')) as { hosts: never[] };
      const [from, to] = await pool.connectAll(definition.hosts);
      const manifest = await readFile(join(hostPath(lab!, 'h1', storePath), id, 'manifest.json'));
      const manifestSha256 = execFileSync('sha256sum', { input: manifest }).toString().slice(0, 64);
      const copied: number[] = [];
      const report = ({ doneBytes = 0 }) => copied.push(doneBytes);
      const part = {
        from: from!,
        to: to!,
        snapshot: id,
        manifestSha256,
        report,
        signal: new AbortController().signal,
      };
      await copyPart(part);
      const name = `${id}.${manifestSha256.slice(0, 12)}`;
      expect(await stored('h2')).toEqual(expect.arrayContaining([id, name]));
      expect(copied.at(-1)).toBeGreaterThan(1_000_000);
      copied.length = 0;
      await copyPart(part);
      expect(copied).toEqual([]);
      await to!.call('removeSnapshot', { snapshot: id }, 10_000);
      expect(await stored('h2')).not.toContain(name);
      const aborted = AbortSignal.abort(new Error('left'));
      await expect(copyPart({ ...part, signal: aborted })).rejects.toThrow(/left|cancel/);
      await expect.poll(async () => (await stored('h2')).filter((each) => each.startsWith(id))).toEqual([]);
    } finally {
      await pool.close();
    }
  });
});

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

describe('rolling snapshots', () => {
  it('are taken again and again, and only they are removed', async () => {
    const before = (await list()).map(({ id }) => id);
    await staghorn(`snapshot ${lab!.name} --every 5s --keep 2`);
    await expect
      .poll(async () => (await bench.server.client.json('GET', `${bench.path}/rolling`, rolling)).taken, {
        timeout: 120_000,
        interval: 500,
      })
      .toBeGreaterThan(2);
    await staghorn(`rolling ${lab!.name} --stop`);
    const running = async () => {
      const all = await bench.server.client.json('GET', '/v1/operations', z.array(operation));
      return all.filter(({ state }) => state === 'running').length;
    };
    await expect.poll(running, { timeout: 15_000 }).toBe(0);
    const after = await list();
    expect(after.map(({ id }) => id)).toEqual(expect.arrayContaining(before));
    const own = after.filter(({ labels }) => 'staghorn.rolling' in labels);
    expect(own.length).toBeLessThanOrEqual(3);
    expect(own.length).toBeGreaterThanOrEqual(2);
    expect((await staghorn('rolling')).trim().split('\n')).toHaveLength(1);
  });
});
