import type { LabFile } from './schema.ts';
import { bytesOf } from './shaping.ts';

type Nic = LabFile['vms'][number]['nics'][number];
type Network = LabFile['networks'][number];

export interface NicProblem {
  readonly key: string;
  readonly message: string;
}

/** QEMU's rtl8139 has no buffers for more. */
const RTL8139_MTU_BYTES = 1500;
/** Ethernet's header with a VLAN tag. */
const HEADER_BYTES = 18;

/** The networks that a NIC is in: those of its trunk, or one. */
export function networksOf(nic: Nic, all: readonly Network[]): Network[] {
  const names = nic.trunk ?? [nic.network ?? all[0]!.name];
  return names.flatMap((name) => all.filter((network) => network.name === name));
}

function placeProblems(nic: Nic, all: readonly Network[]): NicProblem[] {
  const problems: NicProblem[] = [];
  const missing = (name: string): boolean => !all.some((network) => network.name === name);
  if (nic.network !== undefined && missing(nic.network))
    problems.push({ key: 'network', message: `there is no network "${nic.network}"` });
  for (const name of nic.trunk ?? []) {
    if (missing(name)) problems.push({ key: 'trunk', message: `there is no network "${name}"` });
    else if (all.some((network) => network.name === name && network.vlan === undefined))
      problems.push({ key: 'trunk', message: `network "${name}" has no VLAN to tell it by in a trunk` });
  }
  if (nic.trunk !== undefined && nic.network !== undefined)
    problems.push({ key: 'network', message: 'a NIC is in one network, or in those of a trunk' });
  if (nic.trunk !== undefined && nic.ip !== undefined)
    problems.push({
      key: 'ip',
      message: 'a trunk has an address in each of its networks; they follow the rule',
    });
  return problems;
}

/**
 * Open vSwitch's userspace datapath reads taps without offload metadata, and hands a frame on without the checksum
 * that was left to it. The emulated cards have QEMU complete every frame, so they may have the header.
 */
function modelProblems(nic: Nic, mtuBytes: number): NicProblem[] {
  const problems: NicProblem[] = [];
  if (nic.model !== 'virtio' && nic.queues > 1)
    problems.push({ key: 'queues', message: `an ${nic.model} has one queue` });
  if (nic.model !== 'virtio' && nic.vhost !== 'off')
    problems.push({ key: 'vhost', message: `vhost serves virtio, not an ${nic.model}` });
  if (nic.model === 'virtio' && nic.offloads === 'on')
    problems.push({
      key: 'offloads',
      message: "the switch's userspace datapath would pass on frames of virtio without their checksums",
    });
  if (nic.model === 'rtl8139' && mtuBytes > RTL8139_MTU_BYTES)
    problems.push({ key: 'model', message: `an rtl8139 takes no frames of ${mtuBytes} bytes` });
  return problems;
}

/** Everything in a NIC's keys that does not fit together. */
export function nicProblems(nic: Nic, all: readonly Network[]): NicProblem[] {
  const mtuBytes = Math.max(0, ...networksOf(nic, all).map(({ mtu }) => mtu));
  const problems = [...placeProblems(nic, all), ...modelProblems(nic, mtuBytes)];
  const burst = nic.shape?.burst;
  if (burst !== undefined && bytesOf(burst) < mtuBytes + HEADER_BYTES)
    problems.push({
      key: 'shape',
      message: `a burst of ${burst} drops frames of ${mtuBytes + HEADER_BYTES} bytes`,
    });
  return problems;
}
