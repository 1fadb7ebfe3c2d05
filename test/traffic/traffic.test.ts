import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Generator, judge } from '../../src/bench/traffic/index.ts';
import type { EndpointPlan, EndpointReport, FlowPlan, Verdict } from '../../src/bench/traffic/index.ts';
import { closeDescriptor, duplicateDescriptor } from '../../src/native/descriptors.ts';
import { sendFrames } from '../../src/native/gate.ts';
import { setLink } from '../../src/native/netlink.ts';
import { makePersistentTap, readTapFrames, tapRingIsEmpty, vnetHeaderBytes } from '../../src/native/tap.ts';
import { NetworkLab } from '../network/network-lab.ts';

const macOf = (place: number) => `02:00:00:00:00:0${place}`;

describe('the traffic generator', () => {
  let lab: NetworkLab;
  let folder: string;
  const generators: Generator[] = [];

  beforeEach(() => {
    lab = NetworkLab.enter();
    folder = mkdtempSync(join(tmpdir(), 'staghorn-traffic-test-'));
  });

  afterEach(async () => {
    for (const generator of generators.splice(0)) await generator.kill();
    lab.leave();
    rmSync(folder, { recursive: true, force: true });
  });

  async function start(plans: readonly EndpointPlan[]): Promise<Generator> {
    const generator = await Generator.start(plans);
    generators.push(generator);
    return generator;
  }

  /** It can be joined to a bridge when an endpoint has opened it: before, it has no carrier. */
  function tap(name: string, mtu = 1500): string {
    makePersistentTap({ name, vnetHdr: true });
    setLink({ ifindex: lab.ifindex(name), mtu, up: true });
    return name;
  }

  const flowTo = (place: number, changes: Partial<FlowPlan> = {}): FlowPlan => ({
    ...{ id: place, toMac: macOf(place), recipients: [`e${place}`], ratePerSecond: 1000 },
    ...{ minBytes: 46, maxBytes: 1514 },
    ...changes,
  });
  const tapEndpoint = (place: number, device: string, flows: readonly FlowPlan[]): EndpointPlan => ({
    ...{ name: `e${place}`, mac: macOf(place), port: { kind: 'tap', device }, vnetHeaderBytes: 12, flows },
  });

  const endpointsOf = (...list: readonly Generator[]) => list.flatMap(({ endpoints }) => endpoints);
  const reports = (...list: readonly Generator[]): Promise<EndpointReport[]> =>
    Promise.all(endpointsOf(...list).map((endpoint) => endpoint.report()));
  const sentBy = (found: readonly EndpointReport[]) =>
    found.flatMap(({ sent }) => sent).reduce((sum, { frames }) => sum + frames, 0);

  async function run(generator: Generator, frames: number): Promise<void> {
    for (const endpoint of generator.endpoints) await endpoint.continue();
    const goal = sentBy(await reports(generator)) + frames;
    while (sentBy(await reports(generator)) < goal) continue;
  }

  /** Nothing more is sent, and all that was sent has been read. */
  async function settle(plans: readonly EndpointPlan[], ...list: readonly Generator[]): Promise<Verdict> {
    for (const endpoint of endpointsOf(...list)) await endpoint.mute();
    for (let before = ''; ;) {
      const verdict = judge(plans, await reports(...list));
      if (verdict.lost === 0 || JSON.stringify(verdict) === before) return verdict;
      before = JSON.stringify(verdict);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  it('sends frames of every kind, of which a bridge loses none', async () => {
    const [near, far] = await lab.veth();
    const names = [tap('t0', 9000), tap('t1', 9000)];
    const group = { toMac: '01:00:5e:00:00:07', recipients: ['e1', 'e2'], ratePerSecond: 100 };
    const plans = [
      tapEndpoint(0, 't0', [
        flowTo(1, { tags: ['88a8:100', '8100:5'] }),
        flowTo(2, { etherType: 0x88b5, paced: true }),
        flowTo(1, { id: 3, minBytes: 5000, maxBytes: 65_549, gsoBytes: 1448, ratePerSecond: 100 }),
        flowTo(1, { id: 4, minBytes: 8000, maxBytes: 9014, ratePerSecond: 100 }),
      ]),
      tapEndpoint(1, 't1', [flowTo(2, { id: 5, tags: ['8100:9'] })]),
      {
        ...({ name: 'e2', mac: macOf(2), port: { kind: 'packet', device: near } } as const),
        flows: [flowTo(0, { id: 6 }), flowTo(0, { ...group, id: 7, recipients: ['e0', 'e1'] })],
      },
    ];
    const generator = await start(plans);
    await lab.bridge(far, ...names);
    await run(generator, 1000);
    const verdict = await settle(plans, generator);
    expect(verdict.problems).toEqual([]);
    expect(verdict.sent).toBeGreaterThanOrEqual(1000);
    const found = await reports(generator);
    expect(found[1]?.received.find(({ flow }) => flow === 3)?.unsegmented).toBeGreaterThan(0);
  });

  it('stands still when it is told to, and its clock with it', async () => {
    const plans = [tapEndpoint(0, tap('t0'), [flowTo(1)]), tapEndpoint(1, tap('t1'), [])];
    const generator = await start(plans);
    await lab.isUp('t1');
    const [sender, receiver] = generator.endpoints;
    const before = await sender!.continue();
    const stopped = await sender!.stop();
    expect(stopped.atNs - before.atNs).toBe(stopped.virtualNs - before.virtualNs);
    const first = await sender!.report();
    sendFrames(lab.ifindex('t1'), [Buffer.alloc(60)]);
    const { pid, queueFds } = await receiver!.hello();
    const twin = duplicateDescriptor({ pid, fd: queueFds[0]! });
    expect(tapRingIsEmpty(twin)).toBe(false);
    expect(vnetHeaderBytes(twin)).toBe(12);
    expect(await sender!.report()).toEqual(first);
    const resumed = await sender!.continue();
    expect(resumed.virtualNs).toBe(stopped.virtualNs);
    await receiver!.continue();
    while (!tapRingIsEmpty(twin)) continue;
    closeDescriptor(twin);
    expect((await receiver!.report()).foreign).toBe(1);
  });

  it('is stopped through a descriptor that somebody else writes to', async () => {
    const generator = await start([tapEndpoint(0, tap('t0'), [])]);
    const endpoint = generator.endpoints[0]!;
    await endpoint.continue();
    const { fd, bytes, happened } = endpoint.prepareStop();
    const { writeSync } = await import('node:fs');
    writeSync(fd, bytes);
    expect((await happened).virtualNs).toBeGreaterThan(0n);
    expect((await endpoint.report()).running).toBe(false);
  });

  /** A sender and a receiver in processes of their own, joined by a bridge; both are saved in the middle. */
  async function savedPair() {
    const plans = [tapEndpoint(0, tap('t0'), [flowTo(1)]), tapEndpoint(1, tap('t1'), [])] as const;
    const [sender, receiver] = [await start([plans[0]]), await start([plans[1]])];
    await lab.bridge('t0', 't1');
    await run(receiver, 0);
    await run(sender, 200);
    expect((await settle(plans, sender, receiver)).problems).toEqual([]);
    const states = plans.map(({ name }) => join(folder, name));
    for (const [place, endpoint] of endpointsOf(sender, receiver).entries()) {
      await endpoint.stop();
      await endpoint.save(states[place]!);
    }
    const again = async (old: Generator, place: 0 | 1) => {
      await old.kill();
      const generator = await start([{ ...plans[place], restoreFrom: states[place] }]);
      await lab.forwards(plans[place].port.device);
      for (const endpoint of generator.endpoints) await endpoint.unmute();
      return generator;
    };
    return { plans, sender, receiver, again };
  }

  it('goes on from a saved state in another process', async () => {
    const { plans, again, ...old } = await savedPair();
    const [sender, receiver] = [await again(old.sender, 0), await again(old.receiver, 1)];
    await run(receiver, 0);
    await run(sender, 200);
    const verdict = await settle(plans, sender, receiver);
    expect(verdict.problems).toEqual([]);
    expect(verdict.sent).toBeGreaterThanOrEqual(400);
  });

  it('finds copies where a sender is set back, and losses where a receiver is', async () => {
    const { plans, sender: old, receiver, again } = await savedPair();
    await run(receiver, 0);
    for (const endpoint of old.endpoints) await endpoint.unmute();
    await run(old, 200);
    await settle(plans, old, receiver);
    const sender = await again(old, 0);
    await run(sender, 100);
    expect((await settle(plans, sender, receiver)).duplicated).toBeGreaterThanOrEqual(100);
    const forgetful = await again(receiver, 1);
    await run(forgetful, 0);
    expect((await settle(plans, sender, forgetful)).lost).toBeGreaterThanOrEqual(100);
  });

  it('finds frames out of order, copies and damage', async () => {
    const watcher = lab.tap();
    const sending = flowTo(1, { minBytes: 100, maxBytes: 100 });
    const plans = [tapEndpoint(0, tap('t0'), [sending]), tapEndpoint(1, tap('t1'), [])];
    const generator = await start(plans);
    await lab.bridge('t0', watcher.name);
    await lab.isUp('t1');
    await run(generator, 20);
    await generator.endpoints[0]!.mute();
    const frames = readTapFrames(watcher.fd)
      .map(({ frame }) => frame)
      .filter((frame) => frame.readUInt16BE(12) === 0x88b6);
    const damaged = Buffer.from(frames.pop()!);
    damaged[99]! ^= 1;
    const [first, second, third, ...rest] = frames as [Buffer, Buffer, Buffer];
    sendFrames(lab.ifindex('t1'), [second, first, third, third, ...(rest as Buffer[]), damaged]);
    expect(await settle(plans, generator)).toMatchObject({
      lost: 1,
      reordered: 1,
      duplicated: 1,
      corrupted: 1,
    });
  });

  it('says what is wrong with an endpoint', async () => {
    await expect(start([tapEndpoint(0, 'a-very-long-device-name', [])])).rejects.toThrow(/too long/);
    const noTap = { ...tapEndpoint(0, 'gone', []), port: { kind: 'packet', device: 'gone' } } as const;
    await expect(start([{ ...noTap, vnetHeaderBytes: 0 }])).rejects.toThrow(/bind gone/);
    const noState = { ...tapEndpoint(0, tap('t0'), []), restoreFrom: join(folder, 'none') };
    await expect(start([noState])).rejects.toThrow(/none/);
  });
});
