import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate, sendFrames } from '../../src/native/gate.ts';
import { readLinks, setLink } from '../../src/native/netlink.ts';
import { parseSmaps } from '../../src/native/process-memory.ts';
import { readTapFrames, tapRingIsEmpty } from '../../src/native/tap.ts';
import { isOurs, NetworkLab, numberedFrame, numberOf, numbers } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';

const MS = 1_000_000n;
const hex = (frame: Buffer) => frame.toString('hex');
const readNumbers = (fd: number) => readTapFrames(fd).map(({ frame }) => numberOf(frame));

describe('a gate in taps', () => {
  let lab: NetworkLab;
  let tap: LabTap;
  let gate: Gate;

  beforeEach(() => {
    lab = NetworkLab.enter();
    tap = lab.tap();
    gate = Gate.create({ slots: 4, ringBytes: 1 << 20 });
    gate.attachTap({ fd: tap.fd, slot: 0 });
  });

  afterEach(() => {
    gate.close();
    lab.leave();
  });

  const send = (...which: number[]) => {
    sendFrames(
      tap.ifindex,
      which.map((number) => numberedFrame(number)),
    );
  };
  const at = (ifindex: number, slot: number, notBeforeNs = process.hrtime.bigint(), shiftNs = 0n) => ({
    slot,
    ifindex,
    shiftNs,
    notBeforeNs,
  });

  it('has its memory in no process that this one forks: to copy its page tables would take milliseconds', () => {
    const smaps = parseSmaps(readFileSync('/proc/self/smaps', 'utf8'));
    const own = smaps.filter(({ path }) => path?.includes('bpf-map') === true);
    expect(own.length).toBeGreaterThan(2);
    expect(own.filter(({ flags }) => !flags.has('dc'))).toEqual([]);
  });

  it('lets everything pass in pass mode', () => {
    send(...numbers(0, 50));
    expect(readNumbers(tap.fd)).toEqual(numbers(0, 50));
    expect(gate.counters(0)).toEqual({
      diverted: 0,
      returned: 0,
      seen: 0,
      passed: 50,
      failed: 0,
      markers: 0,
    });
  });

  it('holds everything in hold mode, and nothing reaches the tap', () => {
    const before = process.hrtime.bigint();
    gate.setMode('hold');
    send(...numbers(0, 50));
    expect(tapRingIsEmpty(tap.fd)).toBe(true);
    const held = gate.peek();
    expect(held.map(({ frame }) => numberOf(frame))).toEqual(numbers(0, 50));
    expect(held.map(({ seq }) => Number(seq))).toEqual(numbers(0, 50));
    expect(
      held.every(({ atNs, slot }) => slot === 0 && atNs >= before && atNs <= process.hrtime.bigint()),
    ).toBe(true);
    expect([...gate.countHeld()]).toEqual([50, 0, 0, 0]);
    expect(gate.counters(0)).toMatchObject({ diverted: 50, returned: 0, passed: 0, failed: 0 });
  });

  it('turns by one store into the shared state', () => {
    new Int32Array(gate.stateMemory)[0] = 1;
    expect(gate.mode).toBe('hold');
    send(7);
    expect(gate.counters(0).diverted).toBe(1);
  });

  it('returns everything in order, each frame as long after the resumption as it came after the stop', async () => {
    const reader = lab.reader(tap);
    const stopped = process.hrtime.bigint();
    gate.setMode('hold');
    for (const number of numbers(0, 10)) {
      send(number);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const arrivals = gate.peek().map(({ atNs }) => atNs);
    const resume = process.hrtime.bigint() + 20n * MS;
    const report = await gate.replay({ ports: [at(tap.ifindex, 0, resume, resume - stopped)] });
    expect(await reader.have(10)).toEqual(numbers(0, 10));
    reader.stop();
    expect(report.ports).toMatchObject([{ delivered: 10, preloaded: 0, undeliverable: 0, missing: 0 }]);
    expect(report.latenessNs).toMatchObject({ count: 10 });
    expect(report.latenessNs.median).toBeGreaterThanOrEqual(0);
    const errorsMs = reader.frames
      .map(({ atNs }, place) => Number(atNs - resume - ((arrivals[place] ?? 0n) - stopped)) / 1e6)
      .sort((one, other) => one - other);
    expect(errorsMs[0]).toBeGreaterThanOrEqual(0);
    expect(gate.mode).toBe('pass');
    expect(gate.counters(0)).toMatchObject({ diverted: 10, returned: 10, seen: 10, failed: 0 });
    expect(gate.peek()).toEqual([]);
  });

  it('queues what comes during the replay behind what is held, and passes frames afterwards', async () => {
    const reader = lab.reader(tap);
    gate.setMode('hold');
    send(...numbers(0, 20));
    const now = process.hrtime.bigint();
    const replay = gate.replay({ ports: [at(tap.ifindex, 0, now + 500n * MS)], liveFromNs: now });
    send(...numbers(20, 40));
    expect(tapRingIsEmpty(tap.fd)).toBe(true);
    const report = await replay;
    expect(await reader.have(40)).toEqual(numbers(0, 40));
    expect(report.ports[0]?.delivered).toBe(40);
    send(...numbers(40, 45));
    expect(await reader.have(45)).toEqual(numbers(0, 45));
    reader.stop();
    expect(gate.counters(0).passed).toBe(5);
  });

  it('keeps order while a sender races the end of the replay, again and again', async () => {
    setLink({ ifindex: tap.ifindex, txQueueLen: 20_000 });
    let sent = 0;
    const flood = (count: number) => {
      send(...numbers(sent, sent + count));
      sent += count;
    };
    for (let round = 0; round < 15; round++) {
      gate.setMode('hold');
      flood(40);
      // Later in each round, because opening a packet socket may take longer than the whole replay.
      const notBefore = process.hrtime.bigint() + BigInt(round) * 4n * MS;
      const replay = gate.replay({ ports: [at(tap.ifindex, 0, notBefore)] });
      flood(500); // from this thread, while the replay's thread catches up with it
      await replay;
      expect(gate.counters(0)).toMatchObject({ failed: 0 });
      flood(5);
    }
    expect(readNumbers(tap.fd)).toEqual(numbers(0, sent));
    const { diverted, returned, passed } = gate.counters(0);
    expect(returned).toBe(diverted);
    expect(diverted + passed).toBe(sent);
    expect(diverted).toBeGreaterThan(15 * 40);
  });

  it('ends a replay when it is closed', async () => {
    gate.setMode('hold');
    send(1);
    const replay = gate.replay({ ports: [at(tap.ifindex, 0, process.hrtime.bigint() + 3600n * 1000n * MS)] });
    gate.close();
    await expect(replay).rejects.toMatchObject({ code: 'ECANCELED' });
  });

  it('delivers everything at once, in order, when the replay is aborted', async () => {
    gate.setMode('hold');
    send(...numbers(0, 30));
    const abort = new AbortController();
    const hour = process.hrtime.bigint() + 3600n * 1000n * MS;
    const replay = gate.replay({ ports: [at(tap.ifindex, 0, hour)], signal: abort.signal });
    abort.abort();
    expect(await replay).toMatchObject({ hurried: true, ports: [{ delivered: 30, missing: 0 }] });
    expect(readNumbers(tap.fd)).toEqual(numbers(0, 30));
  });

  it('keeps ports apart: one port may wait while another is served', async () => {
    const other = lab.tap();
    gate.attachTap({ fd: other.fd, slot: 1 });
    gate.setMode('hold');
    send(1, 2);
    sendFrames(other.ifindex, [numberedFrame(3)]);
    const now = process.hrtime.bigint();
    const report = await gate.replay({
      ports: [at(tap.ifindex, 0, now + 60n * MS), at(other.ifindex, 1, now)],
    });
    expect(report.ports.map(({ delivered }) => delivered)).toEqual([2, 1]);
    expect(readNumbers(tap.fd)).toEqual([1, 2]);
    expect(readNumbers(other.fd)).toEqual([3]);
  });

  it('retries when the tap is full, and keeps the order', async () => {
    gate.setMode('hold');
    send(...numbers(0, 2500)); // more than a tap's ring of 1000
    const replay = gate.replay({ ports: [at(tap.ifindex, 0)] });
    const reader = lab.reader(tap);
    expect(await reader.have(2500)).toEqual(numbers(0, 2500));
    reader.stop();
    expect((await replay).ports[0]).toMatchObject({ delivered: 2500, undeliverable: 0, missing: 0 });
  });

  it('gives up on a tap that nobody reads, and says how many frames that cost', async () => {
    gate.setMode('hold');
    send(...numbers(0, 1200));
    const report = await gate.replay({ ports: [at(tap.ifindex, 0)], giveUpAfterMs: 50 });
    expect(report.ports[0]).toMatchObject({ delivered: 1000, undeliverable: 200, lastErrno: 105 });
    expect(gate.counters(0)).toMatchObject({ diverted: 1200, returned: 1200 });
  });

  it('delivers preloaded frames first, at their offsets, and what came meanwhile behind them', async () => {
    gate.setMode('hold');
    gate.preload(
      0,
      numbers(0, 5).map((number) => ({ offsetNs: BigInt(number) * 5n * MS, frame: numberedFrame(number) })),
    );
    send(...numbers(5, 10));
    expect(gate.countHeld()[0]).toBe(10);
    const resume = process.hrtime.bigint() + 10n * MS;
    const report = await gate.replay({ ports: [at(tap.ifindex, 0, resume)], liveFromNs: 0n });
    expect(process.hrtime.bigint()).toBeGreaterThanOrEqual(resume + 20n * MS);
    expect(report).toMatchObject({ latenessNs: { count: 5 }, ports: [{ delivered: 10, preloaded: 5 }] });
    expect(readNumbers(tap.fd)).toEqual(numbers(0, 10));
  });

  it('counts what finds no room as failed, and lets it pass', () => {
    gate.close();
    gate = Gate.create({ slots: 1, ringBytes: 256 * 1024, hold: true });
    gate.attachTap({ fd: tap.fd, slot: 0 });
    sendFrames(
      tap.ifindex,
      numbers(0, 300).map((number) => numberedFrame(number, 1500)),
    );
    const { diverted, failed } = gate.counters(0);
    expect(failed).toBeGreaterThan(0);
    expect(diverted + failed).toBe(300);
    expect(gate.countHeld()[0]).toBe(diverted);
    expect(readNumbers(tap.fd)).toEqual(numbers(diverted, 300));
  });

  it('uses the ring anew after a replay, many times its size', async () => {
    gate.close();
    gate = Gate.create({ slots: 1, ringBytes: 256 * 1024 });
    gate.attachTap({ fd: tap.fd, slot: 0 });
    for (const round of numbers(0, 8)) {
      gate.setMode('hold');
      const sent = numbers(0, 100).map((number) => numberedFrame(round * 100 + number, 1400));
      sendFrames(tap.ifindex, sent);
      await gate.replay({ ports: [at(tap.ifindex, 0)] });
      expect(readTapFrames(tap.fd).map(({ frame }) => hex(frame))).toEqual(sent.map(hex));
    }
    expect(gate.counters(0)).toMatchObject({ diverted: 800, returned: 800, failed: 0 });
  });

  it('drops what is held when told to discard it, and passes frames then', () => {
    gate.setMode('hold');
    send(1, 2, 3);
    gate.discard();
    gate.setMode('pass');
    send(4);
    expect(readNumbers(tap.fd)).toEqual([4]);
    expect(gate.counters(0)).toMatchObject({ diverted: 3, returned: 3, passed: 1 });
  });

  it('puts frames back into the tap past the gate while it holds', () => {
    send(1, 2);
    gate.setMode('hold');
    const drained = readTapFrames(tap.fd);
    send(3);
    expect(gate.reinject(tap.ifindex, drained)).toBe(2);
    expect(readNumbers(tap.fd)).toEqual([1, 2]);
    expect(gate.peek().map(({ frame }) => numberOf(frame))).toEqual([3]);
  });

  it('brings frames of every size back byte for byte', async () => {
    const large = lab.tap({ mtu: 65_521 });
    gate.close();
    gate = Gate.create({ slots: 1, ringBytes: 4 << 20, hold: true });
    gate.attachTap({ fd: large.fd, slot: 0 });
    const sizes = [
      60, 127, 128, 129, 511, 512, 513, 1514, 1536, 1537, 4096, 4097, 9014, 16_384, 16_385, 65_000, 65_535,
    ];
    const sent = sizes.map((size, place) => numberedFrame(place, size));
    sendFrames(large.ifindex, sent);
    expect(gate.peek().map(({ frame }) => hex(frame))).toEqual(sent.map(hex));
    await gate.replay({ ports: [at(large.ifindex, 0)] });
    expect(readTapFrames(large.fd).map(({ frame }) => hex(frame))).toEqual(sent.map(hex));
  });

  it('leaves no program behind after it was detached', () => {
    gate.setMode('hold');
    gate.detachTap(tap.fd);
    send(1, 2, 3);
    expect(readNumbers(tap.fd)).toEqual([1, 2, 3]);
    expect(gate.counters(0)).toMatchObject({ diverted: 0, passed: 0 });
  });

  it('ends a replay when the gate is made to hold again, and keeps what is left', async () => {
    gate.setMode('hold');
    send(1, 2, 3);
    const now = process.hrtime.bigint();
    const replay = gate.replay({ ports: [at(tap.ifindex, 0, now + 3600n * 1000n * MS)], liveFromNs: now });
    while (gate.mode === 'hold') await new Promise((resolve) => setTimeout(resolve, 1));
    gate.setMode('hold');
    await expect(replay).rejects.toMatchObject({ code: 'ECANCELED' });
    expect(gate.countHeld()[0]).toBe(3);
    await gate.replay({ ports: [at(tap.ifindex, 0)] });
    expect(readNumbers(tap.fd)).toEqual([1, 2, 3]);
  });

  it('refuses to replay when frames are held for a port that was not named, and delivers the rest', async () => {
    const other = lab.tap();
    gate.attachTap({ fd: other.fd, slot: 1 });
    gate.setMode('hold');
    sendFrames(other.ifindex, [numberedFrame(9)]);
    send(1);
    await expect(gate.replay({ ports: [at(tap.ifindex, 0)] })).rejects.toMatchObject({ code: 'ENODEV' });
    expect(readNumbers(tap.fd)).toEqual([1]);
    await gate.replay({ ports: [at(tap.ifindex, 0), at(other.ifindex, 1)] });
    expect(readNumbers(other.fd)).toEqual([9]);
    expect(readNumbers(tap.fd)).toEqual([]);
  });

  it('counts and drops markers in every mode, and hands them over only while somebody listens', () => {
    const head = numberedFrame(0).subarray(0, 12);
    const markerWith = (tags: string) =>
      Buffer.concat([head, Buffer.from(`${tags}88b5`, 'hex'), Buffer.from('STAGMARK'), Buffer.alloc(40)]);
    const markers = ['', '81000005', '88a800078100000a'].map(markerWith);
    const strangers = ['', '81000005'].map((tags) =>
      Buffer.concat([head, Buffer.from(`${tags}88b5`, 'hex'), Buffer.alloc(46)]),
    );
    sendFrames(tap.ifindex, [...markers, ...strangers]);
    expect(readTapFrames(tap.fd).map(({ frame }) => frame)).toEqual(strangers);
    expect(gate.takeMarkers()).toEqual([]);
    gate.listening = true;
    sendFrames(tap.ifindex, markers);
    expect(gate.takeMarkers()).toMatchObject(markers.map((frame) => ({ slot: 0, frame })));
    gate.setMode('hold');
    send(7);
    sendFrames(tap.ifindex, markers);
    expect(gate.takeMarkers()).toMatchObject(markers.map((frame) => ({ slot: 0, frame })));
    expect(gate.takeMarkers()).toEqual([]);
    gate.listening = false;
    sendFrames(tap.ifindex, markers);
    expect(gate.takeMarkers()).toEqual([]);
    expect(gate.counters(0)).toMatchObject({ markers: 12, diverted: 1, failed: 0 });
    expect(gate.peek().map(({ frame }) => frame)).toEqual([numberedFrame(7)]);
    expect(readTapFrames(tap.fd)).toEqual([]);
  });

  it('has room for frames when markers have filled theirs, and never lets one through', () => {
    gate.listening = true;
    gate.setMode('hold');
    const marker = Buffer.concat([
      numberedFrame(0).subarray(0, 12),
      Buffer.from('88b5', 'hex'),
      Buffer.from('STAGMARK'),
      Buffer.alloc(40),
    ]);
    const many = 7000;
    sendFrames(tap.ifindex, Array<Buffer>(many).fill(marker));
    send(1);
    expect(gate.counters(0)).toMatchObject({ markers: many, diverted: 1, failed: 0 });
    expect(gate.takeMarkers().length).toBeLessThan(many);
    sendFrames(tap.ifindex, [marker]);
    expect(gate.takeMarkers()).toHaveLength(1);
    expect(readTapFrames(tap.fd)).toEqual([]);
  });

  it('strips the virtio-net header of a tap that has one', () => {
    const withHeader = lab.tap({ vnetHdr: true });
    sendFrames(withHeader.ifindex, [numberedFrame(5)]);
    expect(readTapFrames(withHeader.fd)).toEqual([{ frame: numberedFrame(5), gsoSize: 0 }]);
  });

  it('keeps the tag of a VLAN frame that the kernel carries beside its bytes', async () => {
    const [outside, inside] = await lab.veth();
    await lab.bridge(inside, tap.name);
    gate.setMode('hold');
    const plain = numberedFrame(3);
    const tagged = Buffer.concat([plain.subarray(0, 12), Buffer.from('8100a07b', 'hex'), plain.subarray(12)]);
    sendFrames(lab.ifindex(outside), [tagged]);
    const ours = (frames: readonly { frame: Buffer }[]) => frames.map(({ frame }) => frame).filter(isOurs);
    expect(ours(gate.peek())).toEqual([tagged]);
    await gate.replay({ ports: [at(tap.ifindex, 0)] });
    expect(ours(readTapFrames(tap.fd))).toEqual([tagged]);
  });

  it('brings back full frames with two tags, which a bridge forwards though they are longer than the MTU allows', async () => {
    const [outside, inside] = await lab.veth();
    for (const end of [outside, inside]) setLink({ ifindex: lab.ifindex(end), mtu: 2000 });
    await lab.bridge(inside, tap.name);
    gate.setMode('hold');
    const full = numberedFrame(3, 1514);
    const tagged = Buffer.concat([
      full.subarray(0, 12),
      Buffer.from('88a8000581000007', 'hex'),
      full.subarray(12),
    ]);
    sendFrames(lab.ifindex(outside), [tagged]);
    const ours = (frames: readonly { frame: Buffer }[]) =>
      frames.map(({ frame }) => hex(frame)).filter((frame) => isOurs(Buffer.from(frame, 'hex')));
    expect(ours(gate.peek())).toEqual([hex(tagged)]);
    const report = await gate.replay({ ports: [at(tap.ifindex, 0)] });
    expect(report.ports[0]).toMatchObject({ undeliverable: 0, lastErrno: 0 });
    expect(ours(readTapFrames(tap.fd))).toEqual([hex(tagged)]);
    expect(readLinks().find(({ ifindex }) => ifindex === tap.ifindex)?.mtu).toBe(1500);
  });

  it('holds behind a queueing discipline, and gets frames when the discipline lets them go', async () => {
    lab.tc(
      'qdisc',
      'add',
      'dev',
      tap.name,
      'root',
      'tbf',
      'rate',
      '400kbit',
      'burst',
      '1600',
      'limit',
      '100000',
    );
    gate.setMode('hold');
    sendFrames(
      tap.ifindex,
      numbers(0, 10).map((number) => numberedFrame(number, 1000)),
    );
    expect(gate.counters(0).diverted).toBeLessThan(10);
    while (gate.counters(0).diverted < 10) await new Promise((resolve) => setTimeout(resolve, 5));
    const arrivals = gate.peek().map(({ atNs }) => atNs);
    const spacedMs = Number((arrivals[9] ?? 0n) - (arrivals[2] ?? 0n)) / 1e6;
    expect(spacedMs).toBeGreaterThan(7 * 20 * 0.8); // 1000 bytes at 400 kbit/s: 20 ms each
    await gate.replay({ ports: [at(tap.ifindex, 0)] });
    expect(readNumbers(tap.fd)).toEqual(numbers(0, 10));
  });
});
