import { open, readFile } from 'node:fs/promises';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { isFlawless, labStatus, labUp, parseLabFile, type Lab } from '../../src/lab/index.ts';
import { vmFiles } from '../../src/lab/paths.ts';
import { restoreResult, type RestoreResult } from '../../src/protocol/resources.ts';
import { QmpClient } from '../../src/qmp/index.ts';
import { readHiddenNs } from '../../src/vmm/hidden-time.ts';
import { Bench, hostPath, runStates, takeDown } from './harness.ts';

const chunkBytes = 1024 * 1024;

describe('restores of VMs that stand on the same snapshot already', { timeout: 180_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let id: string;

  beforeAll(async () => {
    lab = await labUp(
      parseLabFile(`name: resets-${process.pid}
management: 198.18.132.0/24
underlay: 198.18.133.0/24
hosts: [{ name: h1 }, { name: h2 }]
vms:
  - { name: a, host: h1, memoryMiB: 128, nics: [{ model: e1000 }] }
  - { name: b, host: h2, memoryMiB: 128, nics: [{ model: virtio }] }
`),
    );
    bench = await Bench.start(lab);
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    id = await bench.snapshot();
  }, 300_000);
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
  }, 60_000);

  async function restore(body: object = {}, of = id): Promise<RestoreResult> {
    const ended = await bench.operate('POST', `/v1/snapshots/${of}/restore`, { replace: true, ...body });
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    return restoreResult.parse(ended.result);
  }
  const pids = async () =>
    new Map((await labStatus(lab.name)).vms.map(({ name, pid }) => [name, pid!] as const));

  it('puts them back in place twenty times in a row, and nothing shows on the wire', async () => {
    await restore();
    const before = await pids();
    for (let time = 0; time < 20; time++) {
      const result = await restore();
      expect(result.warnings).toEqual([]);
      expect(await runStates(lab)).toEqual(['running', 'running']);
    }
    expect(await pids()).toEqual(before);
  });

  it('goes on with every stream where the snapshot was taken', async () => {
    const since = await bench.guests.offsets();
    await bench.guests.waitForReports(since, 1);
    const atSnapshot = await bench.guests.offsets();
    const moment = await bench.snapshot();
    await restore({}, moment);
    const before = await pids();
    await bench.guests.waitForReports(await bench.guests.offsets(), 1);
    const atRestore = await bench.guests.offsets();
    await restore({}, moment);
    expect(await pids()).toEqual(before);
    await bench.guests.waitForReports(atRestore, 3);
    const parts = [{ from: since, to: atSnapshot }, { from: atRestore }];
    expect(isFlawless(await bench.guests.judge(parts, atSnapshot))).toBe(true);
  });

  it('leaves not one byte of RAM as it had become', async () => {
    await restore();
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    const before = await pids();
    await restore({ paused: true });
    try {
      expect(await pids()).toEqual(before);
      for (const { name, host } of lab.vms)
        expect(await differingChunks(before.get(name)!, (path) => hostPath(lab, host, path))).toEqual([]);
    } finally {
      await bench.operate('POST', `${bench.path}/resume`);
    }
  });

  it('keeps count of the time that is hidden from them, and sets them to now when asked to', async () => {
    const hidden = await restore();
    const pid = (await pids()).get('a')!;
    expect(readHiddenNs(pid) / 1_000n).toBe(BigInt(Math.floor(hidden.clock!.elapsedMs * 1_000)));
    const since = await bench.guests.offsets();
    const advanced = await restore({ clock: 'advance' });
    expect((await pids()).get('a')).toBe(pid);
    expect(readHiddenNs(pid)).toBe(0n);
    expect(advanced.clock!.advancedMs).toBeGreaterThan(hidden.clock!.elapsedMs);
    await bench.guests.waitForReports(since, 1);
  });

  it('starts again what cannot be put back, although its RAM was written to', async () => {
    await restore();
    const before = await pids();
    const path = hostPath(lab, 'h1', vmFiles('a').qmp);
    const qmp = await QmpClient.connect({ path });
    // The name of the job that loads a state is taken.
    const created = qmp.waitEvent('JOB_STATUS_CHANGE', { where: ({ data }) => data.status === 'concluded' });
    const options = { driver: 'file', filename: '/run/empty.img', size: 0 };
    await qmp.execute('blockdev-create', { 'job-id': 'staghorn-load', options });
    await created;
    await qmp.close();
    await restore();
    const after = await pids();
    expect(after.get('a')).not.toBe(before.get('a'));
    expect(after.get('b')).toBe(before.get('b'));
    expect(await runStates(lab)).toEqual(['running', 'running']);
    await bench.guests.waitForReports(await bench.guests.offsets(), 1);
  });

  it('starts again what stands on another snapshot', async () => {
    await restore();
    const other = await bench.snapshot();
    const before = await pids();
    await restore({}, other);
    const after = await pids();
    for (const [name, pid] of before) expect(after.get(name)).not.toBe(pid);
    await restore({}, other);
    expect(await pids()).toEqual(after);
  });
});

/** Which MiB of a paused QEMU's main memory are not what its image has. */
async function differingChunks(pid: number, outside: (path: string) => string): Promise<number[]> {
  const maps = (await readFile(`/proc/${pid}/maps`, 'utf8')).split('\n');
  const line = maps.find((one) => /r\w-p .*\/ram\b|r\w-p .*\.ram/.test(one) && one.includes('snapshots'));
  if (line === undefined) throw new Error(`process ${pid} maps no image of RAM:\n${maps.join('\n')}`);
  const [range, , , , , path] = line.split(/\s+/);
  const [start, end] = range!.split('-').map((text) => BigInt(`0x${text}`));
  const [memory, image] = await Promise.all([open(`/proc/${pid}/mem`), open(outside(path!))]);
  try {
    const [own, stored] = [Buffer.alloc(chunkBytes), Buffer.alloc(chunkBytes)];
    const differing: number[] = [];
    for (let at = 0; BigInt(at) < end! - start!; at += chunkBytes) {
      await memory.read(own, 0, chunkBytes, Number(start!) + at);
      await image.read(stored, 0, chunkBytes, at);
      if (!own.equals(stored)) differing.push(at / chunkBytes);
    }
    return differing;
  } finally {
    await memory.close();
    await image.close();
  }
}
