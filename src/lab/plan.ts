import { needAddress, subnetFrom } from './addressing.ts';
import { linkPrefix, planHost, type HostPlan } from './host-plan.ts';
import type { LabFile } from './schema.ts';
import { planVms, type VmPlan } from './vm-plan.ts';

export type { HostPlan, TunnelPlan } from './host-plan.ts';
export type { GuestKernel, NicPlan, PeerPlan, VmPlan } from './vm-plan.ts';

/**
 * A lab file with everything derived: names, addresses, MACs, peers. Pure, and the same for the same file, so that
 * what is to be made is known (and recorded) before any of it is made.
 */
export interface LabPlan {
  readonly name: string;
  readonly accelerator: LabFile['accelerator'];
  readonly bootDeadlineMs: number;
  readonly management: { readonly subnet: string; readonly bridge: string; readonly address: string };
  /** The namespace that holds the wire between the hosts. */
  readonly wireNamespace: string;
  readonly hosts: readonly HostPlan[];
  readonly vms: readonly VmPlan[];
}

/** @throws StaghornError 'invalid-input' where addresses do not fit their subnets or clash */
export function planLab(lab: LabFile): LabPlan {
  return {
    name: lab.name,
    accelerator: lab.accelerator,
    bootDeadlineMs: lab.bootDeadlineSeconds * 1000,
    management: {
      subnet: lab.management,
      bridge: `${linkPrefix(lab.name)}b`,
      address: needAddress(subnetFrom(lab.management), 1, 'its bridge'),
    },
    wireNamespace: `${lab.name}.wire`,
    hosts: lab.hosts.map((_, index) => planHost(lab, index)),
    vms: planVms(lab),
  };
}
