import { writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate } from '../../src/native/gate.ts';
import { readTapFrames } from '../../src/native/tap.ts';
import { NetworkLab, isOurs, numberedFrame, until } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';
import { datapath, DatapathSwitch } from './datapath-switch.ts';

const BROADCAST = 'ffffffffffff';
const hex = (frame: Buffer) => frame.toString('hex');
const numbered = (length: number, number = 1) => numberedFrame(number, length);
const to = (destination: string, frame: Buffer) =>
  Buffer.concat([Buffer.from(destination, 'hex'), frame.subarray(6)]);
const withTags = (tags: string, frame: Buffer) =>
  Buffer.concat([frame.subarray(0, 12), Buffer.from(tags, 'hex'), frame.subarray(12)]);
const withType = (type: string, frame: Buffer) =>
  Buffer.concat([frame.subarray(0, 12), Buffer.from(type, 'hex'), frame.subarray(14)]);

const PROBE = to(BROADCAST, numbered(64, 0xffff));
const isProbe = (frame: Buffer) => frame.includes(PROBE.subarray(14));
const isWanted = (frame: Buffer) => isOurs(frame) && !isProbe(frame);
const portOf = ({ ifindex }: LabTap, slot: number) => ({
  slot,
  ifindex,
  shiftNs: 0n,
  notBeforeNs: process.hrtime.bigint(),
});

describe(`frames of every shape between guests on Open vSwitch (datapath ${datapath})`, () => {
  let lab: NetworkLab;
  let ovs: DatapathSwitch;
  let gate: Gate;
  let sender: LabTap;
  let receiver: LabTap;

  beforeEach(async () => {
    lab = NetworkLab.enter();
    ovs = await DatapathSwitch.start();
    gate = Gate.create({ slots: 4, ringBytes: 4 << 20 });
  });

  afterEach(async () => {
    gate.close();
    await ovs.stop();
    lab.leave();
  });

  /** Two guests on one bridge, the second behind the gate. */
  async function wire({ mtu = 1500, ports = [[], []] as string[][], probe = PROBE } = {}): Promise<void> {
    ovs.bridge('br0');
    [sender, receiver] = [lab.tap({ mtu }), lab.tap({ mtu })];
    for (const [place, tap] of [sender, receiver].entries())
      ovs.port('br0', tap.name, ...(ports[place] ?? []));
    gate.attachTap({ fd: receiver.fd, slot: 0 });
    await forwards({ probe });
  }

  /** Until the switch has both ports and forwards: it may take a moment to know them. */
  async function forwards({ probe = PROBE, at = receiver } = {}): Promise<void> {
    const reader = lab.reader(at);
    await until(() => {
      writeSync(sender.fd, probe);
      return reader.frames.some(({ frame }) => isProbe(frame));
    }, 'the switch forwards');
    reader.stop();
    readTapFrames(at.fd);
  }

  /** What the receiver gets of frames that the sender sends. */
  async function pass(frames: readonly Buffer[]): Promise<Buffer[]> {
    const reader = lab.reader(receiver);
    const wanted = () => reader.frames.map(({ frame }) => frame).filter(isWanted);
    for (const frame of frames) writeSync(sender.fd, frame);
    await until(() => wanted().length >= frames.length, `${frames.length} frames arrive`);
    reader.stop();
    return wanted();
  }

  /** The same with the gate closed while they come, and opened afterwards: they come in the order of their holding. */
  async function holdAndReturn(frames: readonly Buffer[]): Promise<Buffer[]> {
    const held = () =>
      gate
        .peek()
        .map(({ frame }) => frame)
        .filter(isWanted);
    gate.setMode('hold');
    for (const frame of frames) writeSync(sender.fd, frame);
    await until(() => held().length >= frames.length, `${frames.length} frames are held`);
    const kept = held();
    const reader = lab.reader(receiver);
    const report = await gate.replay({ ports: [portOf(receiver, 0)] });
    expect(report.ports[0]).toMatchObject({ undeliverable: 0, missing: 0, lastErrno: 0 });
    const returned = () => reader.frames.map(({ frame }) => frame).filter(isWanted);
    await until(() => returned().length >= kept.length, `${kept.length} frames are returned`);
    reader.stop();
    expect(returned().map(hex)).toEqual(kept.map(hex));
    return returned();
  }

  /** Open vSwitch may itself change the order of frames that belong to different flows. */
  async function expectUnchanged(frames: readonly Buffer[]): Promise<void> {
    const sent = frames.map(hex).sort();
    expect((await pass(frames)).map(hex).sort()).toEqual(sent);
    expect((await holdAndReturn(frames)).map(hex).sort()).toEqual(sent);
    expect(gate.counters(0)).toMatchObject({ failed: 0 });
  }

  it('brings back runts, full frames, broadcast, multicast and EtherTypes of every kind', async () => {
    await wire();
    const types = ['0042', '05dc', '0800', '0806', '86dd', '8847', '8863', '88cc', '9100', 'ffff'];
    await expectUnchanged([
      ...Array.from({ length: 60 - 18 }, (_, place) => numbered(18 + place)),
      numbered(1514),
      to(BROADCAST, numbered(200)),
      to('01005e010203', numbered(200)),
      to('333300000001', numbered(200)),
      ...types.map((type) => withType(type, numbered(100))),
    ]);
  });

  it('brings back a frame that is nothing but its header', async () => {
    await wire();
    await expectUnchanged([14, 15, 16, 17].map((length) => numbered(60).subarray(0, length)));
  });

  it('brings back what guests tag themselves, once and twice, up to the full size', async () => {
    await wire({ mtu: 1504 });
    await expectUnchanged([
      withTags('8100a07b', numbered(60)),
      withTags('8100007b', numbered(1514)),
      withTags('88a8a07b', numbered(60)),
      withTags('88a8007b81000005', numbered(100)),
      withTags('8100007b81000005', numbered(100)),
      withTags('8100007b81000005', numbered(1514)),
    ]);
  });

  it('brings back jumbo frames', async () => {
    await wire({ mtu: 9000 });
    await expectUnchanged([numbered(9014), numbered(5000), withTags('8100007b', numbered(9014))]);
  });

  it('brings back what goes from a trunk to an access port and the other way round', async () => {
    await wire({ ports: [['trunks=7,8'], ['tag=7']], probe: withTags('81000007', PROBE) });
    const plain = numbered(300);
    expect((await holdAndReturn([withTags('81000007', plain)])).map(hex)).toEqual([hex(plain)]);
    gate.detachTap(receiver.fd);
    [sender, receiver] = [receiver, sender];
    gate.attachTap({ fd: receiver.fd, slot: 0 });
    expect((await holdAndReturn([plain])).map(hex)).toEqual([hex(withTags('81000007', plain))]);
  });

  it('keeps the bridges of a host apart, and joins them by patch ports', async () => {
    await wire();
    ovs.bridge('br1');
    const far = lab.tap();
    ovs.port('br1', far.name);
    gate.attachTap({ fd: far.fd, slot: 1 });
    for (const [own, peer, bridge] of [
      ['p0', 'p1', 'br0'],
      ['p1', 'p0', 'br1'],
    ] as const) {
      const patch = ['--', 'set', 'interface', own, 'type=patch', `options:peer=${peer}`];
      ovs.vsctl('add-port', bridge, own, ...patch);
    }
    await forwards({ at: far });
    const frame = to(BROADCAST, numbered(400));
    gate.setMode('hold');
    writeSync(sender.fd, frame);
    const held = () => gate.peek().filter((record) => isWanted(record.frame));
    await until(() => held().length >= 2, 'both guests are to get it');
    expect(
      held()
        .map(({ slot }) => slot)
        .sort(),
    ).toEqual([0, 1]);
    const readers = [lab.reader(receiver), lab.reader(far)];
    await gate.replay({ ports: [portOf(receiver, 0), portOf(far, 1)] });
    for (const reader of readers) {
      await until(() => reader.frames.some((read) => read.frame.equals(frame)), 'it is returned');
      reader.stop();
    }
  });
});
