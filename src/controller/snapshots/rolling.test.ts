import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { makeSnapshot } from '../../../test/api/samples.ts';
import { StaghornError } from '../../errors/index.ts';
import { rollingInput, rollingLabel } from '../../protocol/rolling.ts';
import { Catalog } from '../catalog/catalog.ts';
import { nextBeat, RollingSnapshots, type RollingWork } from './rolling.ts';

const log = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const startMs = Date.parse('2026-11-22T12:00:00Z');
const input = rollingInput.parse({ everySeconds: 60, keep: 2 });

describe('rolling snapshots', () => {
  let directory: string;
  let catalog: Catalog;
  let isFree: boolean;
  let failure: StaghornError | null;
  let count: number;
  let rolling: RollingSnapshots;

  const work: RollingWork = {
    isFree: () => isFree,
    take: async (experiment, { labels }) => {
      if (failure !== null) throw failure;
      const snapshot = makeSnapshot(++count, { experiment, labels });
      catalog.sealSnapshot({ snapshot, manifests: {} });
      return snapshot;
    },
    remove: async ({ id }) => catalog.removeSnapshot(id),
  };
  const numbers = () => catalog.listSnapshots().map(({ snapshot }) => Number(snapshot.id.slice(-1)));
  const pass = (seconds: number) => vi.advanceTimersByTimeAsync(seconds * 1000);

  beforeEach(() => {
    vi.useFakeTimers({ now: startMs });
    directory = mkdtempSync(join(tmpdir(), 'staghorn-rolling-'));
    catalog = Catalog.open(join(directory, 'catalog.sqlite'));
    [isFree, failure, count] = [true, null, 0];
    rolling = new RollingSnapshots(catalog, work, log);
  });
  afterEach(async () => {
    await rolling.close();
    catalog.close();
    vi.useRealTimers();
    rmSync(directory, { recursive: true });
  });

  it('begin at once, come in their rhythm, and keep the last ones', async () => {
    rolling.put('lab', input);
    await pass(1);
    expect(numbers()).toEqual([1]);
    await pass(60 * 3);
    expect(numbers()).toEqual([3, 4]);
    expect(rolling.get('lab')).toMatchObject({ taken: 4, skipped: 0, lastError: null });
    expect(rolling.get('lab').nextAt).toBe('2026-11-22T12:04:00.000Z');
  });

  it('remove only their own, and none that was named or is to be kept', async () => {
    catalog.putSnapshot({ snapshot: makeSnapshot(8), manifests: {} });
    catalog.putSnapshot({
      snapshot: makeSnapshot(9, { name: 'n', labels: { [rollingLabel]: '' } }),
      manifests: {},
    });
    rolling.put('lab', { ...input, keep: 1 });
    await pass(60 * 3 + 1);
    expect(numbers()).toEqual([4, 8, 9]);
  });

  it('skip a beat while something else is done, and go on after one that failed', async () => {
    isFree = false;
    rolling.put('lab', input);
    await pass(1);
    expect(rolling.get('lab')).toMatchObject({ taken: 0, skipped: 1 });
    isFree = true;
    failure = new StaghornError('disk-full', 'no room');
    await pass(60);
    expect(rolling.get('lab').lastError).toMatchObject({ code: 'disk-full', detail: 'no room' });
    failure = null;
    await pass(60);
    expect(rolling.get('lab')).toMatchObject({ taken: 1, skipped: 1, lastError: null });
  });

  it('go on after the controller was restarted, and not when they were stopped', async () => {
    rolling.put('lab', input);
    await pass(1);
    await rolling.close();
    vi.setSystemTime(startMs + 600_000);
    rolling = new RollingSnapshots(catalog, work, log);
    rolling.start();
    await pass(1);
    expect(numbers()).toEqual([1, 2]);
    rolling.remove('lab');
    await pass(600);
    expect(numbers()).toEqual([1, 2]);
    expect(() => rolling.get('lab')).toThrow(/no rolling/);
  });

  it('never come twice for a beat that was missed', () => {
    const plan = { nextAt: new Date(startMs).toISOString(), everySeconds: 60 };
    expect(nextBeat(plan, startMs)).toBe('2026-11-22T12:01:00.000Z');
    expect(nextBeat(plan, startMs + 150_000)).toBe('2026-11-22T12:03:00.000Z');
    expect(nextBeat(plan, startMs - 5)).toBe('2026-11-22T12:01:00.000Z');
  });
});
