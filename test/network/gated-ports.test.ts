import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { drain } from '../../src/network/drain.ts';
import { GatedPorts } from '../../src/network/gated-ports.ts';
import type { PortToGate } from '../../src/network/gated-ports.ts';
import { sendFrames } from '../../src/native/gate.ts';
import { readQdiscs } from '../../src/native/netlink.ts';
import { readTapFrames } from '../../src/native/tap.ts';
import { isOurs, NetworkLab, numberedFrame, numberOf, numbers } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';

describe('gated ports', () => {
  let lab: NetworkLab;
  let tap: LabTap;
  let gated: GatedPorts;
  const signal = new AbortController().signal;

  beforeEach(() => {
    lab = NetworkLab.enter();
    tap = lab.tap();
    gated = GatedPorts.create({ slots: 3, ringBytes: 1 << 20 });
  });

  afterEach(() => {
    gated.close();
    lab.leave();
  });

  const tapPort = (name: string, { fd, ifindex }: LabTap): PortToGate => ({
    name,
    ifindex,
    place: 'tap',
    fd,
  });
  const send = (ifindex: number, ...which: number[]) => {
    sendFrames(
      ifindex,
      which.map((number) => numberedFrame(number)),
    );
  };
  const now = () => ({ shiftNs: 0n, notBeforeNs: process.hrtime.bigint() });

  it('holds taps and other devices together, and returns to each its own', async () => {
    const [near, far] = await lab.veth();
    const receiver = lab.tap();
    await lab.bridge(far, receiver.name);
    const nearIndex = lab.ifindex(near);
    gated.attach([tapPort('vm/net0', tap), { name: 'cable', ifindex: nearIndex, place: 'egress' }]);
    gated.hold();
    send(tap.ifindex, 1, 2);
    send(nearIndex, 3, 4);
    expect([...gated.held()].map(({ port, frame }) => [port, numberOf(frame)])).toEqual([
      ['vm/net0', 1],
      ['vm/net0', 2],
      ['cable', 3],
      ['cable', 4],
    ]);
    gated.assertConserved();
    const report = await gated.replay({ resumption: now, signal });
    gated.assertDelivered(report);
    gated.assertConserved();
    expect(readTapFrames(tap.fd).map(({ frame }) => numberOf(frame))).toEqual([1, 2]);
    const received = readTapFrames(receiver.fd).map(({ frame }) => frame);
    expect(received.filter(isOurs).map(numberOf)).toEqual([3, 4]);
    expect(gated.detach()).toEqual([]);
    expect(readQdiscs(nearIndex).map(({ kind }) => kind)).not.toContain('clsact');
  });

  it('leaves a clsact qdisc that was there before, with its filters', async () => {
    const [near] = await lab.veth();
    lab.tc('qdisc', 'add', 'dev', near, 'clsact');
    lab.tc(
      'filter',
      'add',
      'dev',
      near,
      'egress',
      'prio',
      '7',
      'u32',
      'match',
      'u32',
      '0',
      '0',
      'flowid',
      '1:1',
    );
    gated.attach([{ name: 'cable', ifindex: lab.ifindex(near), place: 'egress' }]);
    expect(lab.tc('filter', 'show', 'dev', near, 'egress')).toContain('staghorn_gate');
    gated.detach();
    const filters = lab.tc('filter', 'show', 'dev', near, 'egress');
    expect(filters).not.toContain('staghorn_gate');
    expect(filters).toContain('u32');
  });

  it('attaches to all ports or to none', () => {
    const bad: PortToGate = { name: 'gone', ifindex: 999_999, place: 'egress' };
    expect(() => gated.attach([tapPort('vm/net0', tap), bad])).toThrow(
      expect.objectContaining({ code: 'network-unfit', context: { port: 'gone' } }),
    );
    expect(gated.ports).toEqual([]);
    gated.hold();
    send(tap.ifindex, 1);
    expect(readTapFrames(tap.fd)).toHaveLength(1);
  });

  it('refuses more ports than it has slots, and a port that it has', () => {
    gated.attach([tapPort('a', tap)]);
    expect(() => gated.attach([tapPort('a', tap)])).toThrow(expect.objectContaining({ code: 'conflict' }));
    const more = ['b', 'c', 'd'].map((name) => tapPort(name, lab.tap()));
    expect(() => gated.attach(more)).toThrow(/3 slots/);
    expect(gated.ports.map(({ name }) => name)).toEqual(['a']);
  });

  it('names the port whose frames were lost', () => {
    gated.close();
    gated = GatedPorts.create({ slots: 1, ringBytes: 256 * 1024 });
    gated.attach([tapPort('vm/net0', tap)]);
    gated.hold();
    sendFrames(
      tap.ifindex,
      numbers(0, 300).map((number) => numberedFrame(number, 1500)),
    );
    const lost = expect.objectContaining({ code: 'frames-lost' }) as Error;
    expect(() => gated.assertConserved()).toThrow(lost);
    expect(() => gated.assertConserved()).toThrow(/^vm\/net0: \d+ frames found no room/);
    gated.assertConserved(gated.counters());
  });

  it('reports what could not be delivered by the name of its port', async () => {
    gated.attach([tapPort('vm/net0', tap)]);
    gated.hold();
    send(tap.ifindex, 1, 2);
    lab.ip('link', 'set', tap.name, 'down');
    const report = await gated.replay({ resumption: now, signal });
    expect(() => gated.assertDelivered(report)).toThrow(/^vm\/net0: 2 frames were refused/);
  });

  it('waits for what is on the wire: a queue that lets frames go slowly', async () => {
    lab.tc(
      'qdisc',
      'add',
      'dev',
      tap.name,
      'root',
      'tbf',
      'rate',
      '80kbit', // 100 ms a frame, so that some wait even where a machine is slow to look
      'burst',
      '1600',
      'limit',
      '100000',
    );
    gated.attach([tapPort('vm/net0', tap)]);
    gated.hold();
    const arrivals = () => gated.arrivals();
    sendFrames(
      tap.ifindex,
      numbers(0, 10).map((number) => numberedFrame(number, 1000)),
    );
    const limits = { quietMs: 3, boundMs: 10_000 };
    const report = await drain({ watched: [tap.ifindex], arrivals, awaited: () => 0, ...limits, signal });
    expect(report).toMatchObject({ complete: true, backlog: [{ link: tap.name, qdisc: 'tbf' }] });
    expect(report.quietMs).toBeGreaterThanOrEqual(3);
    expect(gated.arrivals()).toBe(10);
    gated.assertConserved();
  });

  it('says that it is not drained when the time runs out, and stops when it is told to', async () => {
    lab.tc(
      'qdisc',
      'add',
      'dev',
      tap.name,
      'root',
      'tbf',
      'rate',
      '8kbit',
      'burst',
      '1600',
      'limit',
      '100000',
    );
    gated.attach([tapPort('vm/net0', tap)]);
    gated.hold();
    sendFrames(
      tap.ifindex,
      numbers(0, 10).map((number) => numberedFrame(number, 1000)),
    );
    const options = {
      watched: [tap.ifindex],
      arrivals: () => gated.arrivals(),
      awaited: () => 0,
      quietMs: 3,
    };
    expect(await drain({ ...options, boundMs: 30, signal })).toMatchObject({ complete: false });
    const stopped = drain({ ...options, boundMs: 60_000, signal: AbortSignal.timeout(20) });
    await expect(stopped).rejects.toMatchObject({ code: 'cancelled' });
  });

  it('counts markers apart from frames', () => {
    gated.attach([tapPort('vm/net0', tap)]);
    gated.hold();
    gated.gate.listening = true;
    const marker = Buffer.concat([
      numberedFrame(0).subarray(0, 12),
      Buffer.from('88b5', 'hex'),
      Buffer.from('STAGMARK host-1'),
    ]);
    sendFrames(tap.ifindex, [marker, numberedFrame(1)]);
    expect([...gated.held()].map(({ frame }) => numberOf(frame))).toEqual([1]);
    expect(gated.arrivals()).toBe(1);
    gated.assertConserved();
    expect(gated.gate.takeMarkers()).toMatchObject([{ frame: marker }]);
    gated.assertConserved();
  });
});
