import { closeSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Gate, sendFrames } from '../../src/native/gate.ts';
import { enableProgramStats, readProgramStats } from '../../src/native/program-stats.ts';
import { setTapProgram } from '../../src/native/tap.ts';
import { NetworkLab, numberedFrame, numbers } from '../network/network-lab.ts';

describe('run-time statistics of a program', () => {
  let lab: NetworkLab;
  let gate: Gate;

  beforeEach(() => {
    lab = NetworkLab.enter();
    gate = Gate.create({ slots: 1 });
  });

  afterEach(() => {
    gate.close();
    lab.leave();
  });

  it('count the runs and their time while they are taken', () => {
    const tap = lab.tap();
    const program = gate.loadProgram(0, 'tap');
    const statistics = enableProgramStats();
    try {
      setTapProgram(tap.fd, program);
      const frames = numbers(0, 20).map((number) => numberedFrame(number));
      sendFrames(tap.ifindex, frames);
      const { runs, runTimeNs } = readProgramStats(program);
      expect(runs).toBe(20);
      expect(runTimeNs).toBeGreaterThan(0);
    } finally {
      closeSync(statistics);
      closeSync(program);
    }
  });

  it('are refused for what is no program', () => {
    expect(() => readProgramStats(0)).toThrow(
      expect.objectContaining({ syscall: 'bpf(OBJ_GET_INFO_BY_FD)' }),
    );
  });
});
