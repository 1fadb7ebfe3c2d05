import { closeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate, testProgram } from '../../src/native/gate.ts';
import { numberedFrame } from './network-lab.ts';

/** include/uapi/linux/pkt_cls.h: go on to the next filter; say "sent" and drop. */
const GO_ON = -1;
const STOLEN = 4;

describe("the gate's program at egress, run by the kernel on frames that go nowhere", () => {
  let gate: Gate;
  let program: number;

  beforeEach(() => {
    gate = Gate.create({ slots: 2, ringBytes: 256 * 1024 });
    program = gate.loadProgram(1, 'egress');
  });

  afterEach(() => {
    closeSync(program);
    gate.close();
  });

  const ourMark = () => new Uint32Array(gate.stateMemory)[1] ?? 0;

  it('lets frames of others pass and counts them on its own port', () => {
    expect(testProgram(program, numberedFrame(1))).toEqual({ verdict: GO_ON, mark: 0 });
    expect(testProgram(program, numberedFrame(1), 77)).toEqual({ verdict: GO_ON, mark: 77 });
    expect(gate.counters(1)).toMatchObject({ passed: 2, diverted: 0 });
    expect(gate.counters(0)).toMatchObject({ passed: 0 });
  });

  it('diverts in hold mode, with all that is known of the frame', () => {
    gate.setMode('hold');
    expect(testProgram(program, numberedFrame(6, 200)).verdict).toBe(STOLEN);
    expect(gate.peek()).toMatchObject([{ slot: 1, seq: 0n, gsoSize: 0, frame: numberedFrame(6, 200) }]);
  });

  it('goes on diverting in pass mode while anything is held', () => {
    gate.setMode('hold');
    testProgram(program, numberedFrame(1));
    gate.setMode('pass');
    expect(testProgram(program, numberedFrame(2)).verdict).toBe(STOLEN);
    gate.discard();
    expect(testProgram(program, numberedFrame(3)).verdict).toBe(GO_ON);
  });

  it('is seen inside by nobody when it has run, whatever became of the frame', () => {
    const inside = () => new BigUint64Array(gate.stateMemory)[(1 + 1) * 8 + 7];
    testProgram(program, numberedFrame(1));
    testProgram(program, numberedFrame(2), ourMark());
    gate.setMode('hold');
    testProgram(program, numberedFrame(3));
    expect(gate.counters(1)).toMatchObject({ passed: 1, seen: 1, diverted: 1 });
    while (gate.counters(1).failed === 0) testProgram(program, numberedFrame(4, 3000));
    expect(inside()).toBe(0n);
  });

  it('lets its own frames pass even in hold mode, and takes the mark off them', () => {
    gate.setMode('hold');
    expect(testProgram(program, numberedFrame(1), ourMark())).toEqual({ verdict: GO_ON, mark: 0 });
    expect(gate.counters(1)).toMatchObject({ seen: 1, diverted: 0, passed: 0 });
  });

  it('gives every gate a mark of its own, never 0', () => {
    const other = Gate.create({ slots: 1, ringBytes: 256 * 1024 });
    expect(ourMark()).not.toBe(0);
    expect(new Uint32Array(other.stateMemory)[1]).not.toBe(ourMark());
    other.close();
  });
});

describe('a gate', () => {
  it('refuses sizes and slots that it cannot have', () => {
    for (const slots of [0, -1, 1.5, 5000]) expect(() => Gate.create({ slots })).toThrow(RangeError);
    for (const ringBytes of [0, 4096, 300_000])
      expect(() => Gate.create({ slots: 1, ringBytes })).toThrow(RangeError);
    const gate = Gate.create({ slots: 1, ringBytes: 256 * 1024 });
    for (const slot of [-1, 1, 0.5]) expect(() => gate.counters(slot)).toThrow(RangeError);
    gate.close();
    expect(() => gate.peek()).toThrow(expect.objectContaining({ code: 'EBADF' }));
  });

  it('is opened again by its ids and its nonce only', () => {
    const gate = Gate.create({ slots: 3, ringBytes: 256 * 1024, hold: true });
    const again = Gate.open(gate.identity);
    expect(again.slots).toBe(3);
    expect(again.mode).toBe('hold');
    again.setMode('pass');
    expect(gate.mode).toBe('pass');
    const stale = expect.objectContaining({ code: 'ESTALE' }) as Error;
    expect(() => Gate.open({ ...gate.identity, nonce: gate.identity.nonce ^ 1n })).toThrow(stale);
    const { stateMapId, ringMapId } = gate.identity;
    expect(() => Gate.open({ ...gate.identity, stateMapId: ringMapId, ringMapId: stateMapId })).toThrow(
      stale,
    );
    again.close();
    gate.close();
  });
});
