import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate, sendFrames } from '../../src/native/gate.ts';
import { readTapFrames } from '../../src/native/tap.ts';
import { NetworkLab, numberedFrame, numberOf, type LabTap } from './network-lab.ts';

describe('the end of a replay', () => {
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

  const send = (...which: number[]) =>
    sendFrames(
      tap.ifindex,
      which.map((number) => numberedFrame(number)),
    );

  it.each([
    ['a run of its program is seen inside for too long', 8 + 7, 1n],
    ['its programs are of a version that counts nobody', 4, 0n],
  ])('comes by the word of the kernel if %s', async (_, word, value) => {
    gate.setMode('hold');
    send(1, 2);
    new BigUint64Array(gate.stateMemory)[word] = value;
    const port = { slot: 0, ifindex: tap.ifindex, shiftNs: 0n, notBeforeNs: process.hrtime.bigint() };
    const { ports } = await gate.replay({ ports: [port] });
    expect(ports).toMatchObject([{ delivered: 2, missing: 0 }]);
    send(3);
    expect(readTapFrames(tap.fd).map(({ frame }) => numberOf(frame))).toEqual([1, 2, 3]);
  });
});
