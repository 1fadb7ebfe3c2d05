import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { Lab } from '../../src/lab/index.ts';
import { serialLog } from '../../src/lab/paths.ts';
import { readGuestLines, serialOffset } from '../../src/lab/serial-log.ts';
import { snapshot } from '../../src/protocol/resources.ts';
import { eventually } from '../native/qemu.ts';
import { Bench, destroyVms, runStates, startLab, takeDown } from './harness.ts';

const vms = [
  {
    name: 'a',
    host: 'h1',
    disks: [
      { sizeMiB: 16, format: 'qcow2', cache: 'none' },
      { sizeMiB: 16, format: 'raw', cache: 'writeback' },
    ],
  },
  { name: 'b', host: 'h2', disks: [{ sizeMiB: 16, format: 'raw', cache: 'none' }] },
];
const disks = [
  { vm: 'a', host: 'h1', disk: 'vda' },
  { vm: 'a', host: 'h1', disk: 'vdb' },
  { vm: 'b', host: 'h2', disk: 'vda' },
];

describe('an experiment whose guests fsync what they write', { timeout: 120_000 }, () => {
  let lab: Lab;
  let bench: Bench;

  beforeAll(async () => {
    lab = await startLab('disks', vms);
    bench = await Bench.start(lab);
  });
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
  });

  const offsets = () => Promise.all(disks.map(({ vm, host }) => serialOffset(serialLog(lab.name, host, vm))));

  /** What each guest says of each disk after these places in their logs, once it has said so twice. */
  async function reportsSince(from: readonly number[]): Promise<{ count: number; strange: number }[]> {
    return Promise.all(
      disks.map(({ vm, host, disk }, index) =>
        eventually(async () => {
          const lines = await readGuestLines(serialLog(lab.name, host, vm), { from: from[index]! });
          const own = lines.flatMap((line) => (line.t === 'disk' && line.disk === disk ? [line] : []));
          return own.length >= 2 ? { count: own[0]!.count, strange: own.at(-1)!.strange } : undefined;
        }, 30_000),
      ),
    );
  }

  it('finds on every disk what it had fsynced before the cut, and nothing later', async () => {
    await reportsSince(await offsets());
    const id = await bench.snapshot();
    const taken = await bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshot);
    expect(taken).toMatchObject({ state: 'sealed', warnings: [] });
    for (const replace of [false, true, true]) {
      await reportsSince(await offsets());
      const later = await reportsSince(await offsets());
      if (!replace) await destroyVms(lab);
      const atRestore = await offsets();
      const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`, { replace });
      expect(ended).toMatchObject({ state: 'succeeded', error: null });
      const restored = await reportsSince(atRestore);
      expect(restored.map(({ strange }) => strange)).toEqual([0, 0, 0]);
      restored.forEach(({ count }, index) => expect(count).toBeLessThan(later[index]!.count));
    }
    expect(await runStates(lab)).toEqual(['running', 'running']);
  });
});
