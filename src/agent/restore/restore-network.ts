import { setTimeout as delay } from 'node:timers/promises';

import { StaghornError } from '../../errors/index.ts';
import { closeDescriptor } from '../../native/descriptors.ts';
import { readLinks, readQdiscs, setLink } from '../../native/netlink.ts';
import { isErrno } from '../../native/rtnetlink.ts';
import { plugTap } from '../../native/plug.ts';
import { makePersistentTap, openTap } from '../../native/tap.ts';
import { plugPort, readSwitchPorts } from '../../network/switches/ports.ts';
import type { Nic } from '../../protocol/vm.ts';
import type { HostManifest } from '../../store/manifest.ts';
import { restoreSwitches, type RestoreSwitchesOptions } from './switch-restore.ts';

const backlogPollMs = 2;
const backlogBoundMs = 2_000;
const busyPollMs = 3;
const busyBoundMs = 5_000;

/**
 * Makes the taps and switch ports of a snapshot exist as they were, where they are gone, and closes the taps: until
 * the gate stands in them nothing enters, since a QEMU that is loading reads its tap.
 * @returns what is not as it was, in words
 * @throws StaghornError 'network-unfit' if a tap is held by somebody else
 */
export async function restoreNetwork(
  manifest: HostManifest,
  options: Omit<RestoreSwitchesOptions, 'madeTaps'>,
): Promise<string[]> {
  const { signal } = options;
  const nics = manifest.vms.flatMap(({ nics }) => nics);
  const made = new Set(nics.filter(ensureTap).map(({ tap }) => tap));
  await Promise.all(nics.map((nic) => plugWhenFree(nic, signal)));
  const warnings = await restorePorts(manifest, { ...options, madeTaps: made });
  await waitForEmptyQdiscs(new Set(nics.map(({ tap }) => tap)), signal);
  return warnings;
}

/** The same around taps that are there, and whose VMs have them open. @returns what is not as it was, in words */
export function restorePorts(
  { vms, switches }: HostManifest,
  options: RestoreSwitchesOptions,
): Promise<string[]> {
  const nics = vms.flatMap((vm) => vm.nics);
  return switches === null ? plugPorts(nics, options.signal) : restoreSwitches(switches, options);
}

/** What a manifest of version 1 has of the switches. */
async function plugPorts(nics: readonly Nic[], signal: AbortSignal): Promise<string[]> {
  const ports = await readSwitchPorts(undefined, signal);
  for (const { tap, switchPort } of nics) {
    if (switchPort !== null && !ports.has(tap)) await plugPort(tap, switchPort, signal);
  }
  return [];
}

/** @returns whether it had to be made */
function ensureTap({ tap, mtu, vnetHdr, queues }: Nic): boolean {
  if (readLinks().some(({ name }) => name === tap)) return false;
  makePersistentTap({ name: tap, vnetHdr, multiQueue: queues > 1 });
  const link = readLinks().find(({ name }) => name === tap);
  if (link !== undefined) setLink({ ifindex: link.ifindex, mtu, up: true });
  return true;
}

/** A VM that was killed a moment ago may not have closed its tap yet. */
async function plugWhenFree(nic: Nic, signal: AbortSignal): Promise<void> {
  const { tap } = nic;
  const startedAtMs = performance.now();
  while (!plugIfFree(nic)) {
    if (performance.now() - startedAtMs > busyBoundMs) {
      throw new StaghornError('network-unfit', `tap ${tap} is held by another process`, {
        context: { port: tap },
      });
    }
    await delay(busyPollMs, undefined, { signal });
  }
}

/** @returns false while another process has it open */
function plugIfFree({ tap, vnetHdr, queues }: Nic): boolean {
  // One of several queues opens as often as one likes; without any, the device has no carrier (tun_detach).
  const multiQueue = queues > 1;
  if (multiQueue && readLinks().some(({ name, carrier }) => name === tap && carrier)) return false;
  try {
    const fd = openTap({ name: tap, vnetHdr, multiQueue });
    try {
      plugTap(fd);
    } finally {
      closeDescriptor(fd);
    }
    return true;
  } catch (error) {
    if (isErrno(error, 'EBUSY')) return false;
    throw error;
  }
}

/** A tap without a reader drops what its qdisc releases; what is still queued would reach the restored VM. */
async function waitForEmptyQdiscs(taps: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
  const ifindexes = new Set(readLinks().flatMap(({ name, ifindex }) => (taps.has(name) ? [ifindex] : [])));
  const startedAtMs = performance.now();
  const waiting = () =>
    readQdiscs().some(({ ifindex, backlogPackets }) => ifindexes.has(ifindex) && backlogPackets > 0);
  while (waiting() && performance.now() - startedAtMs < backlogBoundMs) {
    await delay(backlogPollMs, undefined, { signal });
  }
}
