import { expect, it } from 'vitest';

import { addresseesBySegment } from './marker-addressees.ts';

const port = (tap: string, bridge: string | null, vlan: number | null) => ({
  ...{ vm: 'a', tap, mac: `mac of ${tap}`, bridge, vlan },
});

it('addresses markers to the first two ports of each bridge and VLAN, and to none that is in no switch', () => {
  const ports = [
    port('t0', 'br0', 7),
    port('t1', null, null),
    port('t2', 'br0', null),
    port('t3', 'br0', 7),
    port('t4', 'br0', 7),
    port('t5', 'br1', 7),
  ];
  const chosen = [...addresseesBySegment(ports).values()].map((segment) => segment.map(({ tap }) => tap));
  expect(chosen).toEqual([['t0', 't3'], ['t2'], ['t5']]);
});
