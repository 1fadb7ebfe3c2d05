import { describe, expect, it } from 'vitest';

import { forgottenVlans } from './rx-filter.ts';

type Filter = Parameters<typeof forgottenVlans>[1][number];

const filter = (given: Partial<Filter>): Filter => ({
  name: 'net0',
  promiscuous: false,
  vlan: 'normal',
  'vlan-table': [20, 10, 0],
  ...given,
});

describe('VLANs that a guest asked its NIC for', () => {
  it('are warned of, each NIC with its own', () => {
    const warnings = forgottenVlans('a', [filter({}), filter({ name: 'net1', 'vlan-table': [7] })]);
    expect(warnings).toEqual([
      expect.stringMatching(/^VM a: .* VLAN 10, 20 from NIC net0/),
      expect.stringMatching(/VLAN 7 from NIC net1/),
    ]);
  });

  it('are of no matter where the NIC takes everything, or the guest asked for none', () => {
    const safe = [
      { promiscuous: true },
      { vlan: 'all' as const },
      { 'vlan-table': [0] },
      { 'vlan-table': [] },
    ];
    expect(forgottenVlans('a', safe.map(filter))).toEqual([]);
  });
});
