import type { StoredFrame } from '../../protocol/resources.ts';
import { formatTable } from '../table.ts';
import { formatDuration } from '../units.ts';

/** EtherTypes (IEEE 802 numbers, IANA). */
const etherTypes: Readonly<Record<number, string>> = {
  0x0800: 'IPv4',
  0x0806: 'ARP',
  0x8100: '802.1Q',
  0x86dd: 'IPv6',
  0x88a8: '802.1ad',
  0x88cc: 'LLDP',
};

export function listFrames(frames: readonly StoredFrame[]): string {
  const rows = frames.map(({ host, vm, tap, offsetNs, length, data }) => {
    const bytes = Buffer.from(data, 'base64');
    const type = bytes.length < 14 ? undefined : bytes.readUInt16BE(12);
    return [
      host,
      vm,
      tap,
      formatDuration(offsetNs),
      length,
      macAt(bytes, 6),
      macAt(bytes, 0),
      type === undefined ? '-' : (etherTypes[type] ?? `0x${type.toString(16).padStart(4, '0')}`),
    ];
  });
  return formatTable(['HOST', 'VM', 'TAP', 'AFTER STOP', 'BYTES', 'FROM', 'TO', 'TYPE'], rows);
}

function macAt(bytes: Buffer, offset: number): string {
  if (bytes.length < offset + 6) return '-';
  return (bytes.toString('hex', offset, offset + 6).match(/../g) ?? []).join(':');
}
