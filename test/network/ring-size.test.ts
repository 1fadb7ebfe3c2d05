import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate, sendFrames } from '../../src/native/gate.ts';
import { readQdiscs, setLink } from '../../src/native/netlink.ts';
import { readTapFrames, tapRingIsEmpty } from '../../src/native/tap.ts';
import { isOurs, NetworkLab, numberedFrame, numberOf, numbers, until } from './network-lab.ts';
import type { LabTap } from './network-lab.ts';

/** docs/decisions/0007-rings-keep-their-size.md */
describe("the size of a tap's ring", () => {
  let lab: NetworkLab;
  let tap: LabTap;

  beforeEach(() => {
    lab = NetworkLab.enter();
    tap = lab.tap();
  });

  afterEach(() => lab.leave());

  const send = (from: number, to: number) =>
    sendFrames(
      tap.ifindex,
      numbers(from, to).map((number) => numberedFrame(number, 1000)),
    );
  const backlog = () => readQdiscs(tap.ifindex).find(({ kind }) => kind === 'tbf')?.backlogPackets ?? 0;

  it('cannot be changed without losing what waits in front of it', async () => {
    // 8 kbit/s: a frame a second.
    lab.tc(
      ...'qdisc add dev'.split(' '),
      tap.name,
      ...'root tbf rate 8kbit burst 1600 limit 100000'.split(' '),
    );
    send(0, 20);
    const waiting = backlog();
    expect(waiting).toBeGreaterThan(15);
    setLink({ ifindex: tap.ifindex, txQueueLen: 5000 });
    expect(backlog()).toBe(0);
    expect(readTapFrames(tap.fd).length + waiting).toBeLessThanOrEqual(20);
    expect(tapRingIsEmpty(tap.fd)).toBe(true);
  });

  it('does not bound what is held, or given back at once to a VM that reads slowly', async () => {
    const gate = Gate.create({ slots: 1, ringBytes: 8 << 20, hold: true });
    try {
      gate.attachTap({ fd: tap.fd, slot: 0 });
      send(0, 3000);
      expect(gate.countHeld()[0]).toBe(3000);
      const stop = process.hrtime.bigint();
      const ports = [{ slot: 0, ifindex: tap.ifindex, shiftNs: 0n, notBeforeNs: stop }];
      const replaying = gate.replay({ ports });
      const received: number[] = [];
      // Its ring of 1000 fills up, and is read ten frames at a time.
      while (received.length < 3000) {
        await until(() => !tapRingIsEmpty(tap.fd), 'there is a frame in the ring');
        received.push(
          ...readTapFrames(tap.fd, 10)
            .map(({ frame }) => frame)
            .filter(isOurs)
            .map(numberOf),
        );
      }
      expect((await replaying).ports[0]).toMatchObject({ delivered: 3000, undeliverable: 0, missing: 0 });
      expect(received).toEqual(numbers(0, 3000));
      expect(gate.counters(0)).toMatchObject({ failed: 0, diverted: 3000, returned: 3000 });
    } finally {
      gate.close();
    }
  });
});
