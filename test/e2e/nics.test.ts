import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { LogOffsets } from '../../src/demo/guests.ts';
import { labUp, parseLabFile, type Judgement, type Lab } from '../../src/lab/index.ts';
import { restoreResult, snapshot } from '../../src/protocol/resources.ts';
import { Bench, destroyVms, takeDown } from './harness.ts';

/**
 * NICs of every kind that the lab has, in networks of every kind: `intel` (e1000, with virtio-net headers on its tap),
 * `realtek` (rtl8139) and `trunk` (tagged frames, and a second NIC) share a VLAN through Geneve; `trunk`, `slow` and
 * `jumbo` have frames of 9000 bytes through a slow GRE link. What `trunk` streams to `slow` waits in a full queue.
 */
const file = parseLabFile(`name: nics-${process.pid}
management: 198.18.${72 + (process.pid % 8)}.0/24
hosts:
  - { name: h1, switches: [{ name: br-int }, { name: br-two }] }
  - { name: h2, switches: [{ name: br-int }, { name: br-two }] }
networks:
  - { name: red, vlan: 10 }
  - { name: blue, vlan: 20, subnet: 10.78.0.0/24 }
  - { name: large, mtu: 9000, subnet: 10.79.0.0/24 }
links:
  - { from: h1, to: h2, type: geneve }
  - { from: h1, to: h2, type: gre, switch: br-two, shape: { rate: 8mbit } }
vms:
  - { name: intel, host: h1, memoryMiB: 96, nics: [{ network: red, model: e1000, offloads: on }] }
  - { name: realtek, host: h2, memoryMiB: 96, nics: [{ network: red, model: rtl8139 }] }
  - { name: trunk, host: h1, memoryMiB: 96, nics: [{ trunk: [red, blue] }, { network: large, switch: br-two }] }
  - name: slow
    host: h2
    memoryMiB: 96
    nics: [{ network: blue, shape: { rate: 4mbit, burst: 2kb } }]
    probe: { tcpFrom: { trunk: unlimited }, tcpWindowBytes: 11000, tcpSegmentBytes: 536 }
  - name: jumbo
    host: h2
    memoryMiB: 96
    nics: [{ network: large, switch: br-two }]
    probe: { tcpFrom: { trunk: 400000 } }
`);

describe('an experiment with NICs, VLANs, tunnels and MTUs of every kind', { timeout: 180_000 }, () => {
  let lab: Lab;
  let bench: Bench;
  /** Where the guests' present time line begins in their logs: at the last restore. */
  let since: LogOffsets;

  beforeAll(async () => {
    lab = await labUp(file);
    bench = await Bench.start(lab);
    since = await bench.guests.offsets();
    await bench.guests.waitForReports(since, 3);
  }, 240_000);
  afterAll(async () => {
    await bench?.server.stop();
    await takeDown(lab);
  }, 60_000);

  const expectFlawless = async (judgement: Judgement) => {
    expect(await bench.flaws(judgement)).toEqual([]);
    expect(judgement.clockJumpNs).toBe(0);
  };

  it('is snapshotted, and goes on without its guests noticing', async () => {
    const before = await bench.moment();
    await bench.snapshot();
    await bench.guests.waitForReports(await bench.guests.offsets(), 3);
    await expectFlawless(await bench.guests.judge([{ from: since }], before));
  });

  for (const again of ['', ' a second time, from a snapshot of what was restored']) {
    it(`comes back after its VMs were destroyed${again}, with the frames that were in flight`, async () => {
      const before = await bench.moment();
      const id = await bench.snapshot();
      const { framesInFlight } = await bench.server.client.json('GET', `/v1/snapshots/${id}`, snapshot);
      expect(framesInFlight).toBeGreaterThan(0);
      await bench.guests.waitForReports(await bench.guests.offsets(), 1);
      await destroyVms(lab);
      const atRestore = await bench.guests.offsets();
      const ended = await bench.operate('POST', `/v1/snapshots/${id}/restore`);
      expect(ended).toMatchObject({ state: 'succeeded', error: null });
      expect(restoreResult.parse(ended.result)).toMatchObject({ vms: 5, framesDelivered: framesInFlight });
      const timeLine = [{ from: since, to: before }, { from: atRestore }];
      since = atRestore;
      await bench.guests.waitForReports(atRestore, 4);
      await expectFlawless(await bench.guests.judge(timeLine, before));
    });
  }
});
