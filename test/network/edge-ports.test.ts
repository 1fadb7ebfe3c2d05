import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readBpfPrograms } from '../../src/native/bpf-objects.ts';
import { sendFrames } from '../../src/native/gate.ts';
import { readLinks } from '../../src/native/netlink.ts';
import { readRingUsage } from '../../src/native/ring-usage.ts';
import { readXdpPrograms } from '../../src/native/xdp.ts';
import { EdgePorts } from '../../src/network/edge-ports.ts';
import type { EdgePolicy, ExternalPort } from '../../src/network/edge-ports.ts';
import { isOurs, NetworkLab, numberedFrame, numberOf, numbers, until } from './network-lab.ts';
import type { TapReader } from './network-lab.ts';

describe('the edge of an experiment', () => {
  let lab: NetworkLab;
  /** The outside's end of the cable, and ours, which is on the switch together with a VM's tap. */
  let outside: number;
  let port: ExternalPort;
  let vm: TapReader;
  let edge: EdgePorts;
  const signal = new AbortController().signal;

  beforeEach(async () => {
    lab = NetworkLab.enter();
    const [far, near] = await lab.veth();
    const tap = lab.tap();
    await lab.bridge(near, tap.name);
    outside = lab.ifindex(far);
    port = portOf(near);
    vm = lab.reader(tap);
  });

  afterEach(() => {
    edge.close();
    lab.leave();
  });

  function portOf(name: string): ExternalPort {
    const { ifindex, mtu, mac } = readLinks().find((link) => link.name === name)!;
    return { name, ifindex, mtu, mac };
  }

  function arm(policy: EdgePolicy, ringBytes = 1 << 20): void {
    edge = EdgePorts.create({ ports: [port], policy, ringBytes });
    edge.attach();
  }

  const send = (from: number, to: number, length?: number) =>
    sendFrames(
      outside,
      numbers(from, to).map((number) => numberedFrame(number, length)),
    );
  const received = () => vm.frames.filter(({ frame }) => isOurs(frame));
  const have = async (count: number) => {
    await until(() => received().length >= count, `${count} frames were let in`);
    return received().map(({ frame }) => numberOf(frame));
  };
  const now = (shiftNs = 0n) => ({ liveFromNs: process.hrtime.bigint(), shiftNs });

  it('lets everything in as long as time goes on, and what it tries the way with reaches nobody', async () => {
    arm('hold');
    send(0, 20);
    expect(await have(20)).toEqual(numbers(0, 20));
    expect(vm.frames.some(({ frame }) => frame.readUInt16BE(0) === 0x0180)).toBe(false);
    expect(edge.counts()).toEqual([{ port: port.name, held: 0, dropped: 0 }]);
  });

  it('keeps what comes while time stands still, and lets it in byte for byte and in order', async () => {
    arm('hold');
    send(0, 5);
    edge.hold();
    for (const length of [60, 100, 500, 1514]) send(length, length + 3, length);
    await have(5);
    expect(edge.counts()).toEqual([{ port: port.name, held: 12, dropped: 0 }]);
    expect(received()).toHaveLength(5);
    expect(await edge.release(now(), signal)).toEqual([]);
    expect(await have(17)).toEqual([
      ...numbers(0, 5),
      ...numbers(60, 63),
      ...numbers(100, 103),
      ...numbers(500, 503),
      ...numbers(1514, 1517),
    ]);
    expect(received()[14]!.frame).toEqual(numberedFrame(1514, 1514));
    edge.assertKept();
  });

  it('lets a frame in as long after the resumption as it came after the cut', async () => {
    arm('hold');
    edge.hold();
    const cutNs = process.hrtime.bigint();
    await until(() => process.hrtime.bigint() > cutNs + 20_000_000n, 'time has stood still for 20 ms');
    const sentNs = process.hrtime.bigint();
    send(0, 1);
    const liveFromNs = process.hrtime.bigint() + 5_000_000n;
    await edge.release({ liveFromNs, shiftNs: liveFromNs - cutNs }, signal);
    await have(1);
    expect(received()[0]!.atNs).toBeGreaterThanOrEqual(liveFromNs + (sentNs - cutNs));
  });

  it('keeps the order against what comes while it lets in', async () => {
    arm('hold');
    edge.hold();
    send(0, 400);
    const releasing = edge.release(now(), signal);
    for (let from = 400; from < 800; from += 20) {
      send(from, from + 20);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await releasing;
    expect(await have(800)).toEqual(numbers(0, 800));
  });

  it('drops what is to be dropped, and counts it', async () => {
    arm('drop');
    send(0, 3);
    edge.hold();
    send(3, 10);
    expect(edge.counts()).toEqual([{ port: port.name, held: 0, dropped: 7 }]);
    await edge.release(now(), signal);
    send(10, 12);
    expect(await have(5)).toEqual([0, 1, 2, 10, 11]);
  });

  it('finishes checksums that the sender left to its network card', async () => {
    arm('hold');
    edge.hold();
    sendFrames(outside, [udpFrame(partialChecksum)]);
    await edge.release(now(), signal);
    await until(() => vm.frames.some(({ frame }) => isUdp(frame)), 'the datagram was let in');
    expect(vm.frames.find(({ frame }) => isUdp(frame))!.frame.readUInt16BE(40)).toBe(udpChecksum());
  });

  it('cuts TCP that the sender left to its network card to cut', async () => {
    port = { ...port, mtu: 600 };
    arm('hold');
    edge.hold();
    sendFrames(outside, [tcpFrame(1400)]);
    await edge.release(now(), signal);
    await until(() => vm.frames.filter(({ frame }) => isTcp(frame)).length >= 3, 'the segments were let in');
    const segments = vm.frames.map(({ frame }) => frame).filter(isTcp);
    expect(segments.map((frame) => frame.length)).toEqual([614, 614, 54 + 280]);
    expect(segments.map((frame) => frame.readUInt32BE(38))).toEqual([1000, 1560, 2120]);
    expect(segments.map((frame) => frame[47])).toEqual([0x10, 0x10, 0x18]);
    for (const frame of segments) {
      expect(onesSum(frame.subarray(14, 34))).toBe(0xffff);
      expect(pseudoAndTransport(frame)).toBe(0xffff);
    }
    expect(Buffer.concat(segments.map((frame) => frame.subarray(54)))).toEqual(tcpFrame(1400).subarray(54));
  });

  it('says how many frames it could not let in, and lets the others in', async () => {
    // Longer than the wire takes, and no TCP: nothing says how to cut it.
    port = { ...port, mtu: 600 };
    arm('hold');
    edge.hold();
    send(0, 1);
    send(1, 2, 1000);
    send(2, 3);
    expect(await edge.release(now(), signal)).toEqual([
      expect.stringMatching(/^external port \w+: 1 frames that were held could not be let in/),
    ]);
    expect(await have(2)).toEqual([0, 2]);
  });

  it('refuses a port that has an XDP program of somebody else, and leaves that where it is', () => {
    arm('hold');
    const theirs = readXdpPrograms().get(port.ifindex);
    const second = EdgePorts.create({ ports: [port], policy: 'hold', ringBytes: 1 << 20 });
    expect(() => second.attach()).toThrow(
      expect.objectContaining({
        code: 'network-unfit',
        context: { port: port.name },
        message: expect.stringMatching(/an XDP program is on it already/) as string,
      }),
    );
    second.close();
    expect(readXdpPrograms().get(port.ifindex)).toBe(theirs);
  });

  it('refuses to hold frames that are too long to be let in again, but drops them', () => {
    lab.ip('link', 'set', port.name, 'mtu', '9000');
    port = portOf(port.name);
    const unfit = expect.objectContaining({ code: 'network-unfit', context: { port: port.name } }) as Error;
    expect(() => arm('hold')).toThrow(unfit);
    edge.close();
    arm('drop');
  });

  it('puts itself on all ports or on none', () => {
    const gone: ExternalPort = { ...port, name: 'gone', ifindex: 999_999 };
    edge = EdgePorts.create({ ports: [port, gone], policy: 'hold', ringBytes: 1 << 20 });
    expect(() => edge.attach()).toThrow(expect.objectContaining({ context: { port: 'gone' } }));
    expect(readXdpPrograms().size).toBe(0);
  });

  it('tells of frames that found no room and got in', async () => {
    arm('hold', 256 * 1024);
    edge.hold();
    send(0, 300, 1514);
    expect(() => edge.assertKept()).toThrow(
      expect.objectContaining({
        code: 'frames-lost',
        message: expect.stringMatching(/found no room/) as string,
      }),
    );
    const { usedBytes, sizeBytes } = readRingUsage(edge.identity.ringMapId);
    expect(sizeBytes).toBe(256 * 1024);
    expect(usedBytes).toBeGreaterThan(sizeBytes * 0.9);
    await edge.release(now(), signal);
    expect(readRingUsage(edge.identity.ringMapId).usedBytes).toBe(0);
  });

  it('is found again by the next process, with what it keeps', async () => {
    arm('hold');
    edge.hold();
    send(0, 50);
    const next = EdgePorts.adopt(edge.identity, 'hold', edge.ports);
    try {
      await next.release(now(), signal);
      expect(await have(50)).toEqual(numbers(0, 50));
    } finally {
      next.close();
    }
    expect(readXdpPrograms().size).toBe(0);
  });

  it('leaves nothing of itself in the kernel', async () => {
    arm('hold');
    const { stateMapId } = edge.identity;
    const ours = () => readBpfPrograms().filter(({ mapIds }) => mapIds.includes(stateMapId));
    expect(ours()).toHaveLength(1);
    edge.hold();
    send(0, 5);
    await edge.release(now(), signal);
    expect(edge.close()).toEqual([]);
    expect(readXdpPrograms().size).toBe(0);
    // The kernel frees programs and maps after an RCU grace period.
    await until(() => ours().length === 0, 'the program is gone');
  });
});

const isUdp = (frame: Buffer) => frame.readUInt16BE(12) === 0x0800 && frame[23] === 17;
const isTcp = (frame: Buffer) => frame.readUInt16BE(12) === 0x0800 && frame[23] === 6;

function onesSum(bytes: Buffer, start = 0): number {
  let sum = start;
  for (let at = 0; at < bytes.length; at += 2) {
    sum += at + 1 < bytes.length ? bytes.readUInt16BE(at) : bytes[at]! << 8;
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** Ethernet and IPv4 headers of a packet from 192.0.2.1 to 192.0.2.2. */
function headers(protocol: number, transportBytes: number): Buffer {
  const bytes = Buffer.alloc(34);
  Buffer.from('02000000beef02000000cafe0800', 'hex').copy(bytes);
  bytes[14] = 0x45;
  bytes.writeUInt16BE(20 + transportBytes, 16);
  bytes.writeUInt16BE(7, 18);
  bytes[22] = 64;
  bytes[23] = protocol;
  Buffer.from('c0000201c0000202', 'hex').copy(bytes, 26);
  bytes.writeUInt16BE(~onesSum(bytes.subarray(14)) & 0xffff, 24);
  return bytes;
}

function pseudoAndTransport(frame: Buffer): number {
  const transport = frame.subarray(34);
  return onesSum(transport, onesSum(frame.subarray(26, 34)) + frame[23]! + transport.length);
}

/** As the kernel leaves it for a network card to finish: the sum of the pseudo header. */
const partialChecksum = onesSum(Buffer.from('c0000201c0000202', 'hex'), 17 + 8 + 20);

function udpFrame(checksum: number): Buffer {
  const datagram = Buffer.alloc(28, 0x5a);
  datagram.writeUInt16BE(1111, 0);
  datagram.writeUInt16BE(2222, 2);
  datagram.writeUInt16BE(28, 4);
  datagram.writeUInt16BE(checksum, 6);
  return Buffer.concat([headers(17, 28), datagram]);
}

const udpChecksum = () => ~pseudoAndTransport(udpFrame(0)) & 0xffff;

function tcpFrame(payloadBytes: number): Buffer {
  const segment = Buffer.alloc(20 + payloadBytes);
  segment.writeUInt32BE(1000, 4);
  segment[12] = 0x50;
  segment[13] = 0x18;
  for (let at = 20; at < segment.length; at++) segment[at] = (at * 13) & 0xff;
  const whole = Buffer.concat([headers(6, segment.length), segment]);
  whole.writeUInt16BE(onesSum(Buffer.from('c0000201c0000202', 'hex'), 6 + segment.length), 50);
  return whole;
}
