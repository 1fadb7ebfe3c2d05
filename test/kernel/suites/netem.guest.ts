import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sendFrames } from '../../../src/native/gate.ts';
import { readQdiscs } from '../../../src/native/netlink.ts';
import { drain } from '../../../src/network/drain.ts';
import type { DrainReport } from '../../../src/network/drain-tracker.ts';
import { GatedPorts } from '../../../src/network/gated-ports.ts';
import { NetworkLab, numberedFrame, numberOf, numbers, until } from '../../network/network-lab.ts';
import type { LabTap, TapReader } from '../../network/network-lab.ts';

const MS = 1_000_000n;
const COUNT = 50;
const FRAME_BYTES = 1000;
const ascending = (one: number, other: number) => one - other;

describe('frames that wait in netem at the cut', () => {
  let lab: NetworkLab;
  let tap: LabTap;
  let gated: GatedPorts;
  let reader: TapReader;
  let sentNs: bigint;

  beforeEach(() => {
    lab = NetworkLab.enter();
    tap = lab.tap();
    gated = GatedPorts.create({ slots: 1, ringBytes: 1 << 20 });
    gated.attach([{ name: 'vm/net0', ifindex: tap.ifindex, place: 'tap', fd: tap.fd }]);
    reader = lab.reader(tap);
  });

  afterEach(() => {
    gated.close();
    lab.leave();
  });

  const shape = (...settings: string[]) =>
    lab.tc('qdisc', 'add', 'dev', tap.name, 'root', 'netem', 'limit', '10000', ...settings);
  const send = (from = 0, to = COUNT) => {
    sentNs = process.hrtime.bigint();
    sendFrames(
      tap.ifindex,
      numbers(from, to).map((number) => numberedFrame(number, FRAME_BYTES)),
    );
  };
  const held = () => [...gated.held()];
  const heldNumbers = () => held().map(({ frame }) => numberOf(frame));

  async function drained(): Promise<DrainReport> {
    const report = await drain({
      watched: [tap.ifindex],
      arrivals: () => gated.arrivals(),
      quietMs: 5,
      boundMs: 60_000,
      signal: new AbortController().signal,
    });
    expect(report).toMatchObject({ complete: true, backlog: [{ link: tap.name, qdisc: 'netem' }] });
    gated.assertConserved();
    return report;
  }

  /** All are returned in the order in which they were held, none before its time. */
  async function returnsAll(stoppedNs: bigint, before = 0): Promise<void> {
    const kept = held();
    const resumeNs = process.hrtime.bigint() + 10n * MS;
    const report = await gated.replay({
      resumption: () => ({ shiftNs: resumeNs - stoppedNs, notBeforeNs: resumeNs }),
      signal: new AbortController().signal,
    });
    gated.assertDelivered(report);
    await until(() => reader.frames.length >= before + kept.length, 'all frames are returned');
    const returned = reader.frames.slice(before);
    expect(returned.map(({ frame }) => numberOf(frame))).toEqual(kept.map(({ frame }) => numberOf(frame)));
    for (const [place, { atNs }] of returned.entries())
      expect(atNs - resumeNs).toBeGreaterThanOrEqual((kept[place]?.atNs ?? 0n) - stoppedNs);
  }

  it('come with the delay that they were set to have, and the drain waits for them', async () => {
    shape('delay', '3s');
    send();
    const stoppedNs = process.hrtime.bigint();
    gated.hold();
    expect(gated.arrivals()).toBe(0);
    await drained();
    expect(heldNumbers()).toEqual(numbers(0, COUNT));
    for (const { atNs } of held()) expect(atNs - sentNs).toBeGreaterThanOrEqual(3000n * MS);
    await returnsAll(stoppedNs);
  });

  it('come each at its own time under jitter, and keep the order in which netem let them go', async () => {
    shape('delay', '3s', '1500ms');
    const stoppedNs = process.hrtime.bigint();
    gated.hold();
    send();
    await drained();
    expect(heldNumbers().sort(ascending)).toEqual(numbers(0, COUNT));
    expect(heldNumbers()).not.toEqual(numbers(0, COUNT)); // this jitter changes the order
    await returnsAll(stoppedNs);
  });

  it('come one after the other at the rate that was set', async () => {
    shape('rate', '200kbit');
    const stoppedNs = process.hrtime.bigint();
    gated.hold();
    send();
    await drained();
    const frameNs = BigInt(FRAME_BYTES * 8 * 5000);
    const last = held().at(-1);
    expect((last?.atNs ?? 0n) - sentNs).toBeGreaterThanOrEqual(BigInt(COUNT) * frameNs - MS);
    await returnsAll(stoppedNs);
    expect(reader.numbers).toEqual(numbers(0, COUNT));
  });

  it('are all kept, but for those that netem was set to lose', async () => {
    shape('loss', '30%', 'delay', '3s');
    send(0, 200);
    const stoppedNs = process.hrtime.bigint();
    gated.hold();
    await drained();
    const drops = readQdiscs(tap.ifindex).find(({ kind }) => kind === 'netem')?.drops ?? 0;
    expect(drops).toBeGreaterThan(0);
    expect(held()).toHaveLength(200 - drops);
    expect(heldNumbers()).toEqual(heldNumbers().sort(ascending));
    await returnsAll(stoppedNs);
  });

  it('follow those that came before it, none lost and none twice', async () => {
    shape('delay', '50ms', 'rate', '100kbit');
    send();
    await until(() => reader.frames.length > 5, 'some have arrived');
    const stoppedNs = process.hrtime.bigint();
    gated.hold();
    await drained();
    expect(heldNumbers().length).toBeGreaterThan(0);
    await returnsAll(stoppedNs, COUNT - heldNumbers().length);
    expect(reader.numbers).toEqual(numbers(0, COUNT));
  });
});
