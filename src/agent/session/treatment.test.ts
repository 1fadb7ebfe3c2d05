import { expect, it } from 'vitest';

import { gentle, treatmentOf, type Demand } from './treatment.ts';

const second = 1_000_000_000n;
const start: Demand = { atNs: 5n * second, wantedNs: 70n * second };
/** After a second in which vCPUs wanted so many processors. */
const afterWanting = (processors: number): Demand => ({
  atNs: start.atNs + second,
  wantedNs: start.wantedNs + BigInt(Math.round(processors * Number(second))),
});

it('lets the threads of idle guests alone, but for the stop', () => {
  expect(treatmentOf(start, afterWanting(0.4), 2)).toEqual(gentle);
});

it('holds main threads for the resume too where vCPUs wait for processors', () => {
  expect(treatmentOf(start, afterWanting(2), 2)).toEqual(gentle);
  expect(treatmentOf(start, afterWanting(2.1), 2)).toEqual({ holdsVcpus: false, holdsForResume: true });
});

it('lets vCPUs run while a few want each processor', () => {
  expect(treatmentOf(start, afterWanting(6), 2)).toMatchObject({ holdsVcpus: false });
});

it('holds vCPUs where many more want to run than there are processors', () => {
  expect(treatmentOf(start, afterWanting(6.1), 2)).toEqual({ holdsVcpus: true, holdsForResume: true });
  expect(treatmentOf(start, afterWanting(6.1), 4)).toMatchObject({ holdsVcpus: false });
});

it('holds no vCPU where no time has passed to see what they want', () => {
  expect(treatmentOf(start, { ...start, wantedNs: 100n * second }, 2)).toEqual(gentle);
});

it('holds no vCPU where VMs have gone, and took their times with them', () => {
  expect(treatmentOf(start, { atNs: start.atNs + second, wantedNs: 0n }, 2)).toEqual(gentle);
});
