import { setTimeout as delay } from 'node:timers/promises';

import { readLinks, readQdiscs, setLink } from '../native/netlink.ts';
import { makePersistentTap } from '../native/tap.ts';
import { plugPort, readSwitchPorts } from '../network/switch-ports.ts';
import type { Nic } from '../protocol/vm.ts';
import type { HostManifest } from '../store/manifest.ts';

const backlogPollMs = 2;
const backlogBoundMs = 2_000;

/**
 * Makes the taps and switch ports of a snapshot exist as they were, where they are gone, and waits until nothing
 * of the timeline that was given up waits in front of a tap any more.
 */
export async function restoreNetwork(manifest: HostManifest, signal: AbortSignal): Promise<void> {
  const nics = manifest.vms.flatMap(({ nics }) => nics);
  for (const nic of nics) await ensureTap(nic);
  const ports = await readSwitchPorts(undefined, signal);
  for (const { tap, switchPort } of nics) {
    if (switchPort !== null && !ports.has(tap)) await plugPort(tap, switchPort, signal);
  }
  await waitForEmptyQdiscs(new Set(nics.map(({ tap }) => tap)), signal);
}

async function ensureTap({ tap, mtu, vnetHdr }: Nic): Promise<void> {
  if (readLinks().some(({ name }) => name === tap)) return;
  makePersistentTap({ name: tap, vnetHdr });
  const link = readLinks().find(({ name }) => name === tap);
  if (link !== undefined) setLink({ ifindex: link.ifindex, mtu, up: true });
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
