import { existsSync } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { LogOffsets } from '../../src/demo/guests.ts';
import type { Lab } from '../../src/lab/index.ts';
import { readPcapng } from '../../src/pcapng/index.ts';
import { restoreResult, snapshot, storedFrame, verifyResult } from '../../src/protocol/resources.ts';
import { z } from 'zod';
import { Bench, destroyVms, hostPath, runStates, startLab, takeDown } from './harness.ts';

const storePath = '/var/lib/staghorn/snapshots';

describe('an experiment of real VMs on two hosts', { timeout: 120_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  /** Where the guests' present time line begins in their logs: at the last restore. */
  let since: LogOffsets;

  beforeAll(async () => {
    lab = await startLab('job');
    bench = await Bench.start(lab);
    since = await bench.guests.offsets();
    await bench.guests.waitForReports(since, 3);
  });
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
  });

  const get = async (id: string) => bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshot);

  // background first: QEMU refuses it for RAM that is mapped from a file, as that of a restored VM is.
  for (const method of ['background', 'fork', 'precopy', 'stop-copy'] as const) {
    it(`is snapshotted by method ${method} and goes on without its guests noticing`, async () => {
      const before = await bench.moment();
      const id = await bench.snapshot({ method, name: `by-${method}` });
      await bench.guests.waitForReports(await bench.guests.offsets(), 2);
      const taken = await get(id);
      expect(taken).toMatchObject({ state: 'sealed', methods: [method], name: `by-${method}` });
      expect(taken.vms.map(({ name }) => name)).toEqual(['a', 'b']);
      // From either VM's port to the other's host: the drain waited for a marker on both.
      expect(taken).toMatchObject({ provenPaths: 2, warnings: [] });
      const judgement = await bench.guests.judge([{ from: since }], before);
      expect(await bench.datagramFlaws(judgement)).toEqual([]);
      expect(judgement.clockJumpNs).toBe(0);
    });

    it(`comes back from a snapshot by ${method} after its VMs were destroyed`, async () => {
      const before = await bench.moment();
      const id = await bench.snapshot({ method });
      await bench.guests.waitForReports(await bench.guests.offsets(), 1);
      await destroyVms(lab);
      const atRestore = await bench.guests.offsets();
      const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`);
      expect(ended).toMatchObject({ state: 'succeeded', error: null });
      expect(restoreResult.parse(ended.result)).toMatchObject({
        vms: 2,
        framesDelivered: (await get(id)).framesInFlight,
      });
      await bench.guests.waitForReports(atRestore, 3);
      const judgement = await bench.guests.judge([{ from: since, to: before }, { from: atRestore }], before);
      since = atRestore;
      expect(await bench.flaws(judgement)).toEqual([]);
      expect(judgement.clockJumpNs).toBe(0);
    });
  }

  it('refuses to restore over running VMs unless told to, and leaves them as they are', async () => {
    const id = await bench.snapshot();
    const refused = await bench.operate('POST', `/v1/snapshots/${id}/restore`, {});
    expect(refused).toMatchObject({ state: 'failed', error: { code: 'conflict' } });
    expect(await runStates(lab)).toEqual(['running', 'running']);
    since = await bench.guests.offsets();
    const replaced = await bench.operate('POST', `/v1/snapshots/${id}/restore`, { replace: true });
    expect(replaced).toMatchObject({ state: 'succeeded' });
  });

  it('is restored from a snapshot of a restored experiment', async () => {
    const second = await bench.snapshot();
    await destroyVms(lab);
    since = await bench.moment();
    const ended = await bench.operate('POST', `/v1/snapshots/${second}/restore`);
    expect(ended).toMatchObject({ state: 'succeeded', error: null });
    expect(await runStates(lab)).toEqual(['running', 'running']);
    await bench.guests.waitForReports(since, 2);
    const judgement = await bench.guests.judge([{ from: since }], since);
    expect(await bench.flaws(judgement)).toEqual([]);
  });

  it('stands still while it is paused, and goes on without loss', async () => {
    const before = await bench.moment();
    expect(await bench.operate('POST', `${bench.path}/pause`)).toMatchObject({ state: 'succeeded' });
    const busy = bench.start('POST', `${bench.path}/snapshots`);
    await expect(busy).rejects.toMatchObject({
      code: 'conflict',
      message: expect.stringMatching(/is paused/) as string,
    });
    expect(await bench.operate('POST', `${bench.path}/resume`)).toMatchObject({ state: 'succeeded' });
    await bench.guests.waitForReports(await bench.guests.offsets(), 2);
    expect(await bench.flaws(await bench.guests.judge([{ from: since }], before))).toEqual([]);
  });

  it('takes one snapshot at a time', async () => {
    const first = await bench.start('POST', `${bench.path}/snapshots`);
    await expect(bench.start('POST', `${bench.path}/snapshots`)).rejects.toMatchObject({ code: 'conflict' });
    expect(await bench.finish(first.id)).toMatchObject({ state: 'succeeded' });
  });

  it('is left running when a snapshot is cancelled in its midst, with nothing of it left', async () => {
    const { id, snapshot: cancelled } = await bench.start('POST', `${bench.path}/snapshots`);
    for await (const { progress, operation } of bench.server.client.events(id, {
      afterId: 0,
      signal: AbortSignal.timeout(60_000),
    })) {
      if (progress?.step === 'cut') await bench.server.client.send('DELETE', `/v1/operations/${id}`);
      if (operation !== undefined) expect(operation.state).toMatch(/cancelled|succeeded/);
    }
    expect(await runStates(lab)).toEqual(['running', 'running']);
    for (const host of ['h1', 'h2']) {
      const left = await readdir(hostPath(lab, host, storePath));
      expect(left.filter((name) => name.includes('.partial'))).toEqual([]);
    }
    await bench.operate('DELETE', `/v1/snapshots/${cancelled}`).catch(() => undefined);
  });

  it('gives its frames in flight as JSON and as pcapng', async () => {
    const id = await bench.snapshot();
    const frames = await bench.server.client.json('GET', `/v1/snapshots/${id}/frames`, z.array(storedFrame));
    const capture = await bench.server.client.bytes(`/v1/snapshots/${id}/frames`, 'application/x-pcapng');
    const packets = readPcapng(capture).packets;
    expect(packets.map(({ data }) => Buffer.from(data).toString('base64'))).toEqual(
      frames.map(({ data }) => data),
    );
  });

  it('is deleted with all its files', async () => {
    const id = await bench.snapshot();
    expect(existsSync(join(hostPath(lab, 'h1', storePath), id, 'manifest.json'))).toBe(true);
    expect(await bench.operate('DELETE', `/v1/snapshots/${id}`)).toMatchObject({ state: 'succeeded' });
    expect(existsSync(join(hostPath(lab, 'h1', storePath), id))).toBe(false);
    await expect(get(id)).rejects.toMatchObject({ code: 'not-found' });
  });

  describe('with a stored file that was changed', () => {
    const verify = async (id: string) =>
      verifyResult.parse((await bench.operate('POST', `/v1/snapshots/${id}/verify`)).result);

    it('is whole before', async () => {
      expect(await verify(await bench.snapshot())).toMatchObject({ ok: true, problems: [] });
    });

    for (const file of ['a.ram', 'a.state', 'frames.bin', 'manifest.json']) {
      it(`says so of a flipped bit in ${file}, and does not restore it`, async () => {
        const id = await bench.snapshot();
        await flipBit(join(hostPath(lab, 'h1', storePath), id, file));
        const result = await verify(id);
        expect(result.ok).toBe(false);
        expect(result.problems.join()).toMatch(new RegExp(`host h1: .*${file.replace('.', '\\.')}`));
        const restored = await bench.operate('POST', `/v1/snapshots/${id}/restore`, { replace: true });
        expect(restored).toMatchObject({ state: 'failed', error: { code: 'snapshot-damaged', host: 'h1' } });
        expect(await runStates(lab)).toEqual(['running', 'running']);
      });
    }
  });
});

/** In the middle of the first data of the file: RAM files have holes. */
async function flipBit(path: string): Promise<void> {
  const file = await open(path, 'r+');
  try {
    const { size } = await file.stat();
    const chunk = Buffer.alloc(Math.min(size, 1024 * 1024));
    for (let at = 0; at < size; at += chunk.length) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, at);
      const place = chunk
        .subarray(0, bytesRead)
        .findIndex((byte, index) => byte !== 0 && index >= bytesRead / 2);
      if (place < 0) continue;
      chunk[place]! ^= 1;
      await file.write(chunk, place, 1, at + place);
      return;
    }
  } finally {
    await file.close();
  }
  throw new Error(`${path} is all zeros: ${(await readFile(path)).length} bytes`);
}
