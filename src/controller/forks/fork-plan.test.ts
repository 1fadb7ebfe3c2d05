import { describe, expect, it } from 'vitest';

import type { Experiment, Snapshot } from '../../protocol/resources.ts';
import { planForks } from './fork-plan.ts';

const source: Experiment = {
  name: 'lab',
  hosts: [{ name: 'h1', ssh: 'one', external: ['eth1'] }, { name: 'h2' }],
  createdAt: '2026-11-22T15:12:00.000Z',
  state: 'running',
};
const snapshot = {
  id: '20261122T151200Z-3f9ac1',
  vms: [
    { host: 'h1', name: 'a' },
    { host: 'h1', name: 'b' },
  ],
} as unknown as Snapshot;
const host = { forks: [2], tunnelKeys: [100, 7], usedKeys: [100, 7, 0x80_0000], warnings: [] };
const around = { source, snapshot, hosts: [host], experiments: [source] };
const input = { count: 2, verify: true, paused: false };

describe('the plan of forks', () => {
  it('takes numbers, names and keys that nothing has', () => {
    const other = {
      name: 'lab-fork-1',
      fork: { snapshot: snapshot.id, fork: 1, tunnelKeys: { 5: 0x80_0002 } },
    };
    const forks = planForks(input, { ...around, experiments: [source, other] });
    expect(forks.map(({ definition }) => definition.name)).toEqual(['lab-fork-2', 'lab-fork-3']);
    expect(forks.map(({ definition }) => definition.fork)).toEqual([
      { snapshot: snapshot.id, fork: 3, tunnelKeys: { 7: 0x80_0003, 100: 0x80_0001 } },
      { snapshot: snapshot.id, fork: 4, tunnelKeys: { 7: 0x80_0005, 100: 0x80_0004 } },
    ]);
  });

  it('names the VMs of each, leaves out hosts without any, and joins nothing to the outside', () => {
    const [fork] = planForks({ ...input, name: 'copy' }, around);
    expect(fork!.definition).toMatchObject({ name: 'copy-1' });
    expect(fork!.definition.hosts).toEqual([{ name: 'h1', ssh: 'one', vms: ['a.f1', 'b.f1'] }]);
  });

  it('refuses names that are too long', () => {
    const long = { ...input, name: 'x'.repeat(63) };
    expect(() => planForks(long, around)).toThrow(expect.objectContaining({ code: 'invalid-input' }));
  });
});
