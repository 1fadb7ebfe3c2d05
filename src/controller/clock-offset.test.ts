import { expect, it } from 'vitest';

import { clockOffset } from './clock-offset.ts';

it('takes the exchange with the shortest round trip and bounds the error by half of it', () => {
  const exchanges = [
    { sentAtNs: 1000n, hostNs: 6000n, receivedAtNs: 3000n },
    { sentAtNs: 10_000n, hostNs: 15_050n, receivedAtNs: 10_200n },
  ];
  expect(clockOffset(exchanges)).toEqual({ offsetNs: 4950n, errorNs: 100, roundTripNs: 200 });
});
