import { describe, expect, it } from 'vitest';

import { StaghornError } from '../../errors/index.ts';
import { snapshot, type RestoreInput } from '../../protocol/resources.ts';
import { planRestore } from './restore-plan.ts';

const vm = (host: string, name: string, stopOffsetNs: number) => ({
  ...{ host, name, method: 'fork', pauseNs: 1, stopOffsetNs, ramBytes: 1, stateBytes: 1, framesInFlight: 0 },
});
const stored = {
  snapshot: snapshot.parse({
    ...{ id: '20261122T151200Z-3f9ac1', experiment: 'lab', name: null, description: null, state: 'sealed' },
    ...{ createdAt: '2026-11-22T15:12:00.000Z', methods: ['fork'], skewNs: 5, clockErrorNs: 1, drainMs: 1 },
    ...{ pauseNs: { min: 1, max: 1 }, framesInFlight: 0, bytes: 1 },
    vms: [vm('h1', 'a', 0), vm('h1', 'b', 5), vm('h2', 'c', 3)],
  }),
  manifests: { h1: 'one', h2: 'two' },
};
const plan = (input: Pick<RestoreInput, 'vms' | 'map'>, hosts = ['h1', 'h2', 'h3']) =>
  planRestore(stored, input, hosts);
const refusal = (input: Pick<RestoreInput, 'vms' | 'map'>, hosts?: string[]) => {
  try {
    plan(input, hosts);
    return null;
  } catch (error) {
    return error instanceof StaghornError ? error.code : error;
  }
};

describe('the plan of a restore', () => {
  it('gives every host what it had', () => {
    expect(plan({})).toEqual({
      parts: [
        {
          ...{ from: 'h1', to: 'h1', vms: null, manifestSha256: 'one' },
          stopOffsetsNs: new Map([
            ['a', 0n],
            ['b', 5n],
          ]),
        },
        { from: 'h2', to: 'h2', vms: null, manifestSha256: 'two', stopOffsetsNs: new Map([['c', 3n]]) },
      ],
      warnings: [],
    });
  });

  it('asks only hosts that have a chosen VM, and warns', () => {
    const { parts, warnings } = plan({ vms: ['b'] });
    expect(parts.map(({ to, vms }) => ({ to, vms }))).toEqual([{ to: 'h1', vms: ['b'] }]);
    expect(warnings).toEqual([expect.stringMatching(/^only b of 3 VMs/)]);
  });

  it('sends what a host had to another one', () => {
    const { parts } = plan({ map: { h1: 'h3' } });
    expect(parts.map(({ from, to }) => `${from} ${to}`)).toEqual(['h1 h3', 'h2 h2']);
  });

  it('lets two hosts change places', () => {
    expect(plan({ map: { h1: 'h2', h2: 'h1' } }).parts.map(({ to }) => to)).toEqual(['h2', 'h1']);
  });

  it.each([
    ['a VM that is not in it', { vms: ['z'] }, undefined, 'not-found'],
    ['a host that had nothing', { map: { h9: 'h1' } }, undefined, 'not-found'],
    ['a host that the experiment does not have', { map: { h1: 'h9' } }, undefined, 'not-found'],
    ['a host that is gone from the experiment', {}, ['h1'], 'not-found'],
    ['two hosts onto one', { map: { h1: 'h2' } }, undefined, 'invalid-input'],
  ])('refuses %s', (_, input, hosts, code) => {
    expect(refusal(input, hosts)).toBe(code);
  });
});
