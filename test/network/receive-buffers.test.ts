import { writeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closeDescriptor } from '../../src/native/descriptors.ts';
import {
  duplicatePacketSockets,
  readReceiveBuffer,
  setReceiveBuffer,
} from '../../src/native/packet-sockets.ts';
import { ReceiveBuffers } from '../../src/network/switches/receive-buffers.ts';
import { daemonPid } from '../../src/unixctl/index.ts';
import { NetworkLab, numberedFrame, numbers, until } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';
import { OpenVSwitch } from './open-vswitch.ts';

/** More than net.core.rmem_default has room for, less than a tap's ring. */
const burstFrames = 700;

describe("the buffers of a switch's sockets", () => {
  let lab: NetworkLab;
  let ovs: OpenVSwitch;
  let switchPid: number;
  let from: LabTap;
  let to: LabTap;
  const found: ReceiveBuffers[] = [];

  beforeEach(async () => {
    lab = NetworkLab.enter();
    ovs = await OpenVSwitch.start();
    switchPid = await daemonPid();
    [from, to] = [lab.tap(), lab.tap()];
    ovs.bridge('br0', { [from.name]: [], [to.name]: [] });
  });

  afterEach(async () => {
    process.kill(switchPid, 'SIGCONT');
    for (const buffers of found.splice(0)) await buffers.putBack();
    await ovs.stop();
    lab.leave();
  });

  async function find(...taps: readonly LabTap[]): Promise<ReceiveBuffers> {
    const buffers = await ReceiveBuffers.find(taps.map(({ ifindex }) => ifindex));
    found.push(buffers);
    return buffers;
  }

  const bufferOf = (tap: LabTap) => withSocketOf(tap, readReceiveBuffer);

  function withSocketOf<T>({ ifindex }: LabTap, use: (fd: number) => T): T {
    const sockets = duplicatePacketSockets(switchPid);
    try {
      return use(sockets.find((socket) => socket.ifindex === ifindex)!.fd);
    } finally {
      for (const { fd } of sockets) closeDescriptor(fd);
    }
  }

  /** What gets through if the switch stands still while a burst comes in. */
  async function burstPast(standstill: () => void): Promise<number[]> {
    const reader = lab.reader(to);
    // It forwards, and knows the flow.
    await until(() => {
      writeSync(from.fd, numberedFrame(burstFrames));
      return reader.numbers.length > 0;
    }, 'the switch forwards');
    await until(() => bufferOf(from).filledBytes === 0, 'the switch has read all');
    process.kill(switchPid, 'SIGSTOP');
    for (const number of numbers(0, burstFrames)) writeSync(from.fd, numberedFrame(number));
    standstill();
    process.kill(switchPid, 'SIGCONT');
    await until(() => bufferOf(from).filledBytes === 0, 'the switch has read all');
    // Behind all others: when it is here, they are.
    writeSync(from.fd, numberedFrame(burstFrames + 1));
    await until(() => reader.numbers.includes(burstFrames + 1), 'the last frame is read');
    reader.stop();
    return reader.numbers.filter((number) => number < burstFrames);
  }

  it('lose frames while the switch stands still, as they are', async () => {
    const { dropped } = bufferOf(from);
    const received = await burstPast(() => undefined);
    expect(received.length).toBeLessThan(burstFrames);
    expect(bufferOf(from).dropped - dropped).toBe(burstFrames - received.length);
  });

  it('count what finds no room although they are larger', async () => {
    await burstPast(() => undefined);
    const small = bufferOf(from).bytes;
    const buffers = await find(from, to);
    buffers.enlarge();
    expect(buffers.dropped).toBe(0);
    await burstPast(() => {
      withSocketOf(from, (fd) => setReceiveBuffer(fd, small));
      writeSync(from.fd, numberedFrame(burstFrames + 2));
    });
    expect(buffers.dropped).toBe(1);
    await buffers.putBack();
    expect(buffers.dropped).toBe(1);
  });

  it('keep every frame once they are larger', async () => {
    const formerBytes = bufferOf(from).bytes;
    (await find(from, to)).enlarge();
    const received = await burstPast(() => {
      expect(bufferOf(from).filledBytes).toBeGreaterThan(formerBytes);
    });
    expect(received).toEqual(numbers(0, burstFrames));
  });

  it('are put back, of the given devices alone, and only when what waits has been read', async () => {
    const former = bufferOf(from);
    const buffers = await find(from);
    expect(bufferOf(from)).toEqual(former);
    buffers.enlarge();
    expect(bufferOf(from).bytes).toBeGreaterThan(64 * former.bytes);
    expect(bufferOf(to)).toEqual(former);
    let puttingBack = Promise.resolve();
    const received = await burstPast(() => {
      puttingBack = buffers.putBack();
      expect(bufferOf(from).bytes).toBeGreaterThan(64 * former.bytes);
    });
    await puttingBack;
    expect(bufferOf(from).bytes).toBe(former.bytes);
    expect(received).toEqual(numbers(0, burstFrames));
  });

  it('are put back in the end though the switch hangs', async () => {
    const former = bufferOf(from);
    const buffers = await find(from);
    buffers.enlarge();
    process.kill(switchPid, 'SIGSTOP');
    for (const number of numbers(0, burstFrames)) writeSync(from.fd, numberedFrame(number));
    await buffers.putBack();
    expect(bufferOf(from).bytes).toBe(former.bytes);
  });

  it('are put back by whoever is told how they were', async () => {
    const former = bufferOf(from);
    const buffers = await find(from, to);
    buffers.enlarge();
    const told = JSON.parse(JSON.stringify(buffers.former)) as NonNullable<typeof buffers.former>;
    await (await ReceiveBuffers.adopt(told)).putBack();
    expect(bufferOf(from)).toEqual(former);
    expect(bufferOf(to)).toEqual(former);
    // Of a switch that has ended nothing is left to be put back.
    await (await ReceiveBuffers.adopt({ ...told, pid: process.pid })).putBack();
  });

  it('stay as they are if somebody else has made them large', async () => {
    const former = bufferOf(from).bytes;
    const first = await find(from);
    first.enlarge();
    const second = await find(from);
    expect(second.former).toBeNull();
    await second.putBack();
    expect(bufferOf(from).bytes).toBeGreaterThan(64 * former);
    await first.putBack();
    expect(bufferOf(from).bytes).toBe(former);
  });

  it('are not looked for where no switch runs', async () => {
    const buffers = await ReceiveBuffers.find([from.ifindex], '/nonexistent');
    expect(buffers.former).toBeNull();
    buffers.enlarge();
    await buffers.putBack();
  });
});
