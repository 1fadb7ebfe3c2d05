import { writePcapng } from '../pcapng/index.ts';
import type { Snapshot, StoredFrame } from '../protocol/resources.ts';

export const pcapngMediaType = 'application/x-pcapng';

/**
 * The frames as a pcapng file: an interface a tap, named host/tap; a packet a frame in order of arrival. Time
 * stamps begin at the snapshot's creation, with each VM's stop and the frame's offset from it added.
 */
export function framesToPcapng(snapshot: Snapshot, frames: readonly StoredFrame[]): Buffer {
  const names = [...new Set(frames.map(interfaceOf))].sort();
  const createdNs = BigInt(Date.parse(snapshot.createdAt)) * 1_000_000n;
  const packets = frames.map((frame) => ({
    interfaceIndex: names.indexOf(interfaceOf(frame)),
    timestampNs: createdNs + BigInt(stopOffsetNs(snapshot, frame)) + BigInt(frame.offsetNs),
    data: Buffer.from(frame.data, 'base64'),
    comment: `to ${frame.vm} on ${frame.host}, ${frame.offsetNs} ns after it stopped`,
  }));
  packets.sort((a, b) => Number(a.timestampNs - b.timestampNs));
  return writePcapng({ interfaces: names.map((name) => ({ name })), packets });
}

function interfaceOf(frame: StoredFrame): string {
  return `${frame.host}/${frame.tap}`;
}

function stopOffsetNs(snapshot: Snapshot, frame: StoredFrame): number {
  const vm = snapshot.vms.find(({ host, name }) => host === frame.host && name === frame.vm);
  return vm?.stopOffsetNs ?? 0;
}
