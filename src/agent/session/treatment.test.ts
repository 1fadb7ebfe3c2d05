import { expect, it } from 'vitest';

import { treatmentOf, type Demand } from './treatment.ts';

const second = 1_000_000_000n;
const start: Demand = { atNs: 5n * second, wantedNs: 70n * second };
/** After a second in which vCPUs wanted so many processors. */
const afterWanting = (processors: number): Demand => ({
  atNs: start.atNs + second,
  wantedNs: start.wantedNs + BigInt(Math.round(processors * Number(second))),
});

it('lets the vCPUs of idle guests run', () => {
  expect(treatmentOf(start, afterWanting(0.4), 2)).toEqual({ holdsVcpus: false });
});

it('lets vCPUs run while a few want each processor', () => {
  expect(treatmentOf(start, afterWanting(6), 2)).toEqual({ holdsVcpus: false });
});

it('holds vCPUs where many more want to run than there are processors', () => {
  expect(treatmentOf(start, afterWanting(6.1), 2)).toEqual({ holdsVcpus: true });
  expect(treatmentOf(start, afterWanting(6.1), 4)).toEqual({ holdsVcpus: false });
});

it('holds no vCPU where no time has passed to see what they want', () => {
  expect(treatmentOf(start, { ...start, wantedNs: 100n * second }, 2)).toEqual({ holdsVcpus: false });
});

it('holds no vCPU where VMs have gone, and took their times with them', () => {
  expect(treatmentOf(start, { atNs: start.atNs + second, wantedNs: 0n }, 2)).toEqual({ holdsVcpus: false });
});
