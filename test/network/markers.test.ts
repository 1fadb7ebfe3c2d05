import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MarkerExchange } from '../../src/agent/session/marker-exchange.ts';
import { planTargets, sourcesByHost } from '../../src/controller/barrier/marker-plan.ts';
import { readTapFrames, vnetHeaderBytes } from '../../src/native/tap.ts';
import { decodeMarker } from '../../src/network/markers/codec.ts';
import type { VmPorts } from '../../src/network/vm-ports.ts';
import type { NamesByHost } from '../../src/protocol/rpc.ts';
import { bridge, speak, TunnelLab, type Guest, type TunnelHost } from './tunnel-lab.ts';

const broadcast = 'ff:ff:ff:ff:ff:ff';
const bytesOf = (mac: string) => Buffer.from(mac.replaceAll(':', ''), 'hex');
const limits = { boundMs: 10_000, quietMs: 2, watched: [] };
/** Longer than any path takes here, however busy the machine is. */
const listenMs = 10_000;

describe('markers between two switches that are joined by a tunnel', { timeout: 60_000 }, () => {
  let lab: TunnelLab;
  let first: TunnelHost;
  let second: TunnelHost;
  let gates: VmPorts[];
  let exchanges: MarkerExchange[];
  const signal = new AbortController().signal;

  beforeEach(async () => {
    gates = [];
    exchanges = [];
    lab = await TunnelLab.start();
    [first, second] = lab.hosts;
  });
  afterEach(async () => {
    for (const exchange of exchanges) exchange.stop();
    for (const gate of gates) gate.close();
    await lab.stop();
  });

  /** Every guest says something, so that the switches know where it is, and everybody has heard it. */
  async function introduce(...guests: Guest[]): Promise<void> {
    for (const guest of guests) speak(guest, broadcast, 0, vnetHeaderBytes(guest.tap.fd));
    const macs = guests.map(({ mac }) => mac);
    for (const host of lab.hosts) {
      const known = async () => (await host.macTable()).map(({ mac }) => mac);
      await expect.poll(known, { timeout: 10_000 }).toEqual(expect.arrayContaining(macs));
    }
    for (const { tap } of guests) readTapFrames(tap.fd);
  }

  function arm(barrier = 'a barrier'): void {
    for (const host of lab.hosts) {
      const gate = host.gated();
      gates.push(gate);
      exchanges.push(new MarkerExchange(barrier, gate, host.markerPorts()));
    }
  }

  /** As the controller has it done; returns who is to be heard on the second host. */
  async function probe() {
    const armed = lab.hosts.map(({ name, guests }) => {
      const ports = guests.map(({ tap, mac }) => ({ vm: tap.name, tap: tap.name, mac, bridge, vlan: null }));
      return [name, ports] as const;
    });
    const targets = planTargets(new Map(armed));
    const sent = new Map<string, NamesByHost>();
    for (const [place, host] of lab.hosts.entries()) {
      host.enter();
      const params = { host: host.name, targets: targets.get(host.name)! };
      sent.set(host.name, await exchanges[place]!.probe(params, signal));
    }
    const sources = sourcesByHost(sent);
    return (to: TunnelHost) => sources.get(to.name) ?? {};
  }

  const cut = ({ tap }: Guest) => {
    first.enter();
    const port = first.ovs.ofport(tap.name);
    first.ovs.ofctl('add-flow', bridge, `priority=100,in_port=${port},dl_type=0x88b5,actions=drop`);
  };
  const mend = () => {
    first.enter();
    first.ovs.ofctl('del-flows', bridge, 'dl_type=0x88b5');
  };
  const drainSecond = (boundMs = limits.boundMs) => {
    second.enter();
    return gates[1]!.drain({ ...limits, boundMs, signal }, () => exchanges[1]!.awaited());
  };

  it('come to every host, leave what the switches have learnt as it was, and reach nobody else', async () => {
    const [a, a2, b] = [first.addGuest(lab.lab), first.addGuest(lab.lab), second.addGuest(lab.lab)];
    arm();
    second.enter();
    const stranger = lab.lab.tap();
    second.ovs.vsctl('add-port', bridge, stranger.name);
    await introduce(a, a2, b);
    // One that is seen anew would be younger afterwards.
    const oldest = async (host: TunnelHost) =>
      Math.min(...(await host.macTable()).map(({ ageS }) => ageS ?? 0));
    for (const host of lab.hosts)
      await expect.poll(() => oldest(host), { timeout: 10_000 }).toBeGreaterThanOrEqual(2);
    const before = [await first.macTable(), await second.macTable()];
    const sources = await probe();
    expect(Object.values(sources(first)).flat()).toHaveLength(3);
    expect(Object.values(sources(second)).flat()).toHaveLength(2);
    for (const [place, host] of lab.hosts.entries())
      expect(await exchanges[place]!.listen({ sources: sources(host), boundMs: listenMs }, signal)).toEqual(
        [],
      );
    for (const exchange of exchanges) exchange.sendLast();
    expect(await drainSecond()).toMatchObject({ complete: true, heldFrames: 0 });
    expect(exchanges[1]!.expected).toBe(2);
    for (const [place, host] of lab.hosts.entries()) {
      const after = await host.macTable();
      const places = (table: typeof after) => table.map(({ mac, port, vlan }) => ({ mac, port, vlan }));
      expect(places(after)).toEqual(places(before[place]!));
      for (const [row, { ageS }] of after.entries())
        expect(ageS).toBeGreaterThanOrEqual(before[place]![row]!.ageS!);
    }
    for (const { fd } of [a.tap, a2.tap, b.tap, stranger])
      expect(readTapFrames(fd).filter(({ frame }) => decodeMarker(frame) !== null)).toEqual([]);
  });

  it('come behind every frame of a slow wire that nobody watches', async () => {
    const [a, b] = [first.addGuest(lab.lab), second.addGuest(lab.lab)];
    arm();
    await introduce(a, b);
    const sources = await probe();
    expect(await exchanges[1]!.listen({ sources: sources(second), boundMs: listenMs }, signal)).toEqual([]);
    const tbf = ['tbf', 'rate', '800kbit', 'burst', '2000', 'limit', '1000000'];
    lab.onTheWire(() => lab.lab.tc('qdisc', 'add', 'dev', lab.towardsSecond, 'root', ...tbf));
    new Int32Array(gates[1]!.modeWord)[0] = 1;
    const count = 20;
    for (let number = 0; number < count; number++) speak(a, b.mac, number);
    exchanges[0]!.sendLast();
    const report = await drainSecond();
    // A bridge of the kernel greets now and then.
    const held = gates[1]!.held().filter(({ frame }) => frame.subarray(6, 12).equals(bytesOf(a.mac)));
    expect(held.map(({ frame }) => frame.at(-1))).toEqual(Array.from({ length: count }, (_, n) => n));
    expect(report).toMatchObject({ complete: true });
    // The marker was waited for, not a silence: frames of a slow wire are further apart than the quiet interval.
    expect(report.markersMs).toBeGreaterThan(limits.quietMs);
  });

  it('are sent again when one was lost', async () => {
    const [a, b] = [first.addGuest(lab.lab), second.addGuest(lab.lab)];
    arm();
    await introduce(a, b);
    const sources = await probe();
    await exchanges[1]!.listen({ sources: sources(second), boundMs: listenMs }, signal);
    cut(a);
    exchanges[0]!.sendLast();
    const draining = drainSecond();
    expect(exchanges[1]!.awaited()).toEqual([{ host: 'h0', tap: a.tap.name }]);
    mend();
    second.enter();
    expect(await draining).toMatchObject({ complete: true });
  });

  it('that stay away on a proven path fail the drain, which names the path', async () => {
    const [a, b] = [first.addGuest(lab.lab), second.addGuest(lab.lab)];
    arm();
    await introduce(a, b);
    const sources = await probe();
    await exchanges[1]!.listen({ sources: sources(second), boundMs: listenMs }, signal);
    cut(a);
    exchanges[0]!.sendLast();
    await expect(drainSecond(200)).rejects.toMatchObject({
      code: 'deadline-exceeded',
      message: expect.stringContaining(`port ${a.tap.name} of host h0`) as string,
    });
  });

  it('are not waited for on a path that was never proven', async () => {
    const [a, b] = [first.addGuest(lab.lab), second.addGuest(lab.lab)];
    arm();
    await introduce(a, b);
    cut(a);
    const sources = await probe();
    const missing = await exchanges[1]!.listen({ sources: sources(second), boundMs: 100 }, signal);
    expect(missing).toEqual([{ host: 'h0', tap: a.tap.name }]);
    exchanges[0]!.sendLast();
    expect(await drainSecond()).toMatchObject({ complete: true, markersMs: 0 });
  });

  it('are not sent to whom the switch does not know', async () => {
    const [a, b] = [first.addGuest(lab.lab), second.addGuest(lab.lab)];
    arm();
    await introduce(a);
    const sources = await probe();
    expect(sources(second)).toEqual({});
    expect(sources(first)).toEqual({ h1: [b.tap.name] });
  });

  it('take the tagged way of a trunk, and the header of a tap that has one', async () => {
    const a = first.addGuest(lab.lab, { vlan: 5, vnetHdr: true });
    const b = second.addGuest(lab.lab, { vlan: 5 });
    arm();
    await introduce(a, b);
    const sources = await probe();
    expect(sources(second)).toEqual({ h0: [a.tap.name] });
    for (const [place, host] of lab.hosts.entries())
      expect(await exchanges[place]!.listen({ sources: sources(host), boundMs: listenMs }, signal)).toEqual(
        [],
      );
    for (const { tap } of [a, b])
      expect(readTapFrames(tap.fd).filter(({ frame }) => decodeMarker(frame) !== null)).toEqual([]);
  });

  it('of another barrier are not taken for those of this one', async () => {
    const [a, b] = [first.addGuest(lab.lab), second.addGuest(lab.lab)];
    arm();
    await introduce(a, b);
    const stale = new MarkerExchange('an earlier barrier', gates[0]!, first.markerPorts());
    exchanges[0] = stale;
    const sources = await probe();
    expect(await exchanges[1]!.listen({ sources: sources(second), boundMs: 100 }, signal)).toHaveLength(1);
    await stale.ebb();
  });
});
