import type { Treatment } from '../../vmm/controlled-vm.ts';

/** What the vCPUs of a host's VMs have asked for until an instant. */
export interface Demand {
  readonly atNs: bigint;
  /** For how long they have run or waited for a processor, all together. */
  readonly wantedNs: bigint;
}

/** vCPUs that want each processor: beside more, holding them costs less than what main threads wait for them. */
const vcpusEach = 3;

/** Of VMs of which nothing is known. */
export const gentle: Treatment = { holdsVcpus: false, holdsForResume: false };

/**
 * How the threads of the VMs are treated: beside busy guests main threads wait for a processor unless the vCPUs stand
 * still (docs/decisions/0029).
 */
export function treatmentOf(before: Demand, after: Demand, processors: number): Treatment {
  const elapsedNs = Number(after.atNs - before.atNs);
  if (elapsedNs <= 0) return gentle;
  const wantedProcessors = Number(after.wantedNs - before.wantedNs) / elapsedNs;
  return {
    holdsVcpus: wantedProcessors > vcpusEach * processors,
    holdsForResume: wantedProcessors > processors,
  };
}
