import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { labStatus, runInHost, type Lab } from '../../src/lab/index.ts';
import { serialLog } from '../../src/lab/paths.ts';
import { readGuestLines, serialOffset } from '../../src/lab/serial-log.ts';
import { snapshot } from '../../src/protocol/resources.ts';
import { run } from '../cli/run.ts';
import { eventually } from '../native/qemu.ts';
import { Bench, destroyVms, hostPath, runStates, startLab, takeDown } from './harness.ts';
import { pidsOf } from './host-view.ts';

const vms = [
  {
    name: 'a',
    host: 'h1',
    disks: [
      { sizeMiB: 16, format: 'qcow2', cache: 'none' },
      { sizeMiB: 16, format: 'raw', cache: 'writeback' },
    ],
  },
  { name: 'b', host: 'h2' },
];
const disks = ['vda', 'vdb'];
const disksPath = '/var/lib/staghorn/snapshots/disks';

describe('an experiment with disks that is carried to another site', { timeout: 300_000 }, () => {
  let directory: string;
  let archive: string;
  let lab: Lab | undefined;
  let bench: Bench | undefined;
  let id: string;
  /** What the guest had counted to on each disk when it had written on for a while after the cut. */
  let later: readonly number[];

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'staghorn-moved-'));
    archive = join(directory, 'a.tar.zst');
  });
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
    await rm(directory, { recursive: true });
  }, 60_000);

  const start = async () => {
    lab = await startLab('moved', vms);
    bench = await Bench.start(lab);
  };
  const logOf = (host: string) => serialLog(lab!.name, host, 'a');

  async function staghorn(line: string): Promise<string> {
    const env = { STAGHORN_STATE_DIR: dirname(bench!.server.logFile) };
    const ran = await run(bench!.server.client.url, line, { env });
    if (ran.exit !== 0) throw new Error(`${line}: exit ${ran.exit}: ${ran.err}`);
    return ran.out;
  }

  /** What the guest says of each disk after this place in its log, once it has said so twice. */
  async function reportsSince(from: number, host = 'h1'): Promise<{ count: number; strange: number }[]> {
    return Promise.all(
      disks.map((disk) =>
        eventually(async () => {
          const lines = await readGuestLines(logOf(host), { from });
          const own = lines.flatMap((line) => (line.t === 'disk' && line.disk === disk ? [line] : []));
          return own.length >= 2 ? { count: own[0]!.count, strange: own.at(-1)!.strange } : undefined;
        }, 60_000),
      ),
    );
  }

  /** What it had fsynced before the cut is there, and nothing later. */
  async function expectTrueDisks(from: number, host: string): Promise<void> {
    const restored = await reportsSince(from, host);
    expect(restored.map(({ strange }) => strange)).toEqual([0, 0]);
    restored.forEach(({ count }, index) => expect(count).toBeLessThan(later[index]!));
  }

  it('is one archive, images included, after which all of it is removed', async () => {
    await start();
    await reportsSince(await serialOffset(logOf('h1')));
    // The second one names an image of the VM's own and an overlay of the first.
    await bench!.snapshot();
    await reportsSince(await serialOffset(logOf('h1')));
    id = await bench!.snapshot({ name: 'carried' });
    await reportsSince(await serialOffset(logOf('h1')));
    later = (await reportsSince(await serialOffset(logOf('h1')))).map(({ count }) => count);
    await staghorn(`export carried -o ${archive}`);
    const root = dirname(dirname(hostPath(lab!, 'h1', '/')));
    await bench!.server.stop();
    await takeDown(lab);
    expect(existsSync(root)).toBe(false);
  });

  it('goes on elsewhere with the data of the moment, and without what was written later', async () => {
    await start();
    await destroyVms(lab!);
    const ownImages = await readdir(hostPath(lab!, 'h1', disksPath)).catch(() => []);
    expect(ownImages).toEqual([]);
    await staghorn(`import ${archive} --experiment ${lab!.name}`);
    const taken = await bench!.server.client.json('GET', `/v1/snapshots/${id}`, snapshot);
    expect(taken).toMatchObject({ state: 'sealed', name: 'carried' });
    const from = await serialOffset(logOf('h1'));
    await staghorn(`restore carried`);
    await expectTrueDisks(from, 'h1');
    expect(await runStates(lab!)).toEqual(['running', 'running']);
  });

  it('goes on on another host, which gets the images too, and gives them up with the snapshot', async () => {
    const pids = (await labStatus(lab!.name)).vms;
    process.kill(pids.find(({ name }) => name === 'a')!.pid!, 'SIGKILL');
    const images = () => readdir(hostPath(lab!, 'h2', disksPath)).catch(() => []);
    expect(await images()).toEqual([]);
    try {
      await staghorn(`restore carried --vm a --map h1=h2`);
      await expectTrueDisks(0, 'h2');
      const placed = await images();
      expect(placed.length).toBeGreaterThanOrEqual(4);
    } finally {
      for (const pid of await pidsOf(lab!, 'h2', 'qemu')) process.kill(pid, 'SIGKILL');
      await runInHost({ lab: lab!.name, host: 'h2' }, ['ip', 'link', 'delete', 'tap0-0']).catch(() => '');
      await destroyVms(lab!);
    }
    const deleted = await bench!.operate('DELETE', `/v1/snapshots/${id}`);
    expect(deleted).toMatchObject({ state: 'succeeded' });
    // What the VM has written since lies on them, and stays until its time line is given up.
    expect((await images()).filter((name) => !name.startsWith('a.'))).toEqual([]);
  });
});
