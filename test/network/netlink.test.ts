import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { sendFrames } from '../../src/native/gate.ts';
import { readLinks, readQdiscs, setLink } from '../../src/native/netlink.ts';
import { makePersistentTap, openTap } from '../../src/native/tap.ts';
import { NetworkLab, numberedFrame, numbers } from './network-lab.ts';

describe('rtnetlink', () => {
  let lab: NetworkLab;

  beforeEach(() => {
    lab = NetworkLab.enter();
  });

  afterEach(() => {
    lab.leave();
  });

  const slowTap = () => {
    const tap = lab.tap();
    lab.tc('qdisc', 'add', 'dev', tap.name, 'root', 'handle', '5:', 'tbf', 'rate', '10kbit', 'burst', '1600', 'limit', '100000');
    sendFrames(tap.ifindex, numbers(0, 20).map((number) => numberedFrame(number, 1000)));
    return tap;
  };
  const rootOf = (ifindex: number) => readQdiscs(ifindex).find(({ nested }) => !nested);

  it('reads what a device is and what it is set to', () => {
    const tap = lab.tap({ mtu: 9000 });
    expect(readLinks().find(({ ifindex }) => ifindex === tap.ifindex)).toMatchObject({
      name: tap.name,
      kind: 'tun',
      up: true,
      carrier: true,
      mtu: 9000,
      txQueueLen: 1000,
      gsoMaxSize: 65_536,
      mac: expect.stringMatching(/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/) as unknown,
    });
  });

  it('changes what it is told to, and nothing else', () => {
    const { ifindex } = lab.tap();
    setLink({ ifindex, txQueueLen: 4000, gsoMaxSize: 32_000 });
    expect(readLinks().find((link) => link.ifindex === ifindex)).toMatchObject({
      txQueueLen: 4000,
      gsoMaxSize: 32_000,
      mtu: 1500,
      up: true,
    });
    setLink({ ifindex, up: false });
    expect(readLinks().find((link) => link.ifindex === ifindex)).toMatchObject({ up: false });
  });

  it("gives the kernel's errno and words when it refuses", () => {
    expect(() => setLink({ ifindex: 999_999, up: true })).toThrow(expect.objectContaining({ code: 'ENODEV' }));
    const { ifindex } = lab.tap();
    expect(() => setLink({ ifindex, mtu: 10_000_000 })).toThrow(/EINVAL.*mtu/);
  });

  it('reads the backlog of a queueing discipline, and which hang on others', () => {
    const tap = slowTap();
    const root = rootOf(tap.ifindex);
    expect(root).toMatchObject({ kind: 'tbf', handle: 0x50000, parent: 0xffffffff, nested: false });
    expect(root?.backlogPackets).toBeGreaterThan(10);
    expect(root?.backlogBytes).toBeGreaterThan(10_000);
  });

  it('shows that a change of txQueueLen empties the queueing discipline, and one of gsoMaxSize does not', () => {
    const tap = slowTap();
    const before = rootOf(tap.ifindex)?.backlogPackets ?? 0;
    setLink({ ifindex: tap.ifindex, gsoMaxSize: 32_000 });
    expect(rootOf(tap.ifindex)?.backlogPackets).toBeGreaterThanOrEqual(before - 1);
    setLink({ ifindex: tap.ifindex, txQueueLen: 5000 });
    expect(rootOf(tap.ifindex)?.backlogPackets).toBe(0);
  });

  it('makes a tap that stays without a reader, until it is removed', () => {
    const name = `sgp${process.pid}`;
    makePersistentTap({ name });
    expect(readLinks().some((link) => link.name === name)).toBe(true);
    lab.remove(name);
    expect(readLinks().some((link) => link.name === name)).toBe(false);
    expect(() => lab.remove(name)).toThrow(expect.objectContaining({ code: 'ENODEV' }));
  });

  it('refuses names that the kernel would cut', () => {
    expect(() => openTap({ name: 'a-name-of-16-byte' })).toThrow(RangeError);
  });
});
