import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { LogOffsets } from '../../src/demo/guests.ts';
import type { Lab } from '../../src/lab/index.ts';
import { snapshot } from '../../src/protocol/resources.ts';
import { Bench, destroyVms, startLab, takeDown } from './harness.ts';

describe('hosts whose clocks are months apart', { timeout: 240_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  let from: LogOffsets;

  beforeAll(async () => {
    lab = await startLab('clocks', undefined, [
      { name: 'h1', clock: { monotonicOffsetSeconds: 5_000 } },
      { name: 'h2', clock: { monotonicOffsetSeconds: 20_000_000 } },
    ]);
    bench = await Bench.start(lab);
    from = await bench.guests.offsets();
    await bench.guests.waitForReports(from, 3);
  });
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
  });

  it('are cut at one instant, and a snapshot of them comes back', async () => {
    const before = await bench.moment();
    const id = await bench.snapshot();
    const taken = await bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshot);
    // An error in the offsets would show as a skew of days.
    expect(taken.skewNs).toBeLessThan(5e9);
    expect(taken.hosts.map(({ host }) => host)).toEqual(['h1', 'h2']);
    for (const { clockErrorNs } of taken.hosts) expect(clockErrorNs).toBeGreaterThan(0);
    const sum = taken.hosts.reduce((total, { clockErrorNs }) => total + clockErrorNs, 0);
    expect(taken.clockErrorNs).toBe(sum);
    for (const { pauseNs, stopOffsetNs, resumeOffsetNs } of taken.vms)
      expect(resumeOffsetNs! - stopOffsetNs).toBe(pauseNs);
    await bench.guests.waitForReports(await bench.guests.offsets(), 1);
    await destroyVms(lab);
    const atRestore = await bench.guests.offsets();
    const restored = await bench.operate('POST', `/v1/snapshots/${id}/restore`);
    expect(restored).toMatchObject({ state: 'succeeded', error: null });
    await bench.guests.waitForReports(atRestore, 2);
    const judgement = await bench.guests.judge([{ from, to: before }, { from: atRestore }], before);
    expect(await bench.flaws(judgement)).toEqual([]);
    expect(judgement.clockJumpNs).toBe(0);
  });
});
