/**
 * A marker: a frame that an agent sends behind everything that a port has sent before. When it comes to a gate,
 * nothing is on its way any more. Bytes only, without I/O; docs/protocol.md#markers describes them.
 */
export interface Marker {
  /** Of one barrier: markers of an earlier one mean nothing. */
  readonly nonce: Buffer;
  readonly round: number;
  /** A round has as many markers a path as there are ways that frames may take along it; which of them this is. */
  readonly part: number;
  readonly parts: number;
  readonly host: string;
  readonly tap: string;
}

export interface MarkerToSend extends Marker {
  /** The MAC address that it is sent to. */
  readonly destination: string;
  /** The VLAN of its tag; null: none. */
  readonly vlan: number | null;
  /** Whether switches have not seen its source in an earlier round. */
  readonly fresh: boolean;
}

const magic = Buffer.from('STAGMARK');
/** IEEE 802 local experimental EtherType 1. */
const markerEtherType = 0x88b5;
const tagEtherTypes = [0x8100, 0x88a8];
const version = 1;
const macsBytes = 12;
const tagBytes = 4;
export const nonceBytes = 8;
/** Without the frame check sequence (IEEE 802.3, minFrameSize). */
const frameBytesMin = 60;
/** The gate keeps no larger one (kMarkerCapacity in native/gate/gate-program.cc). */
const frameBytesMax = 128;

/** The frame of a marker. Throws a RangeError if its names are too long for one. */
export function encodeMarker(marker: MarkerToSend): Buffer {
  const { destination, vlan, fresh, nonce, round, part, parts, host, tap } = marker;
  const tag = Buffer.alloc(vlan === null ? 0 : tagBytes);
  if (vlan !== null) tag.writeUInt16BE(tagEtherTypes[0]!, 0);
  if (vlan !== null) tag.writeUInt16BE(vlan, 2);
  const frame = Buffer.concat([
    Buffer.from(destination.replaceAll(':', ''), 'hex'),
    sourceOf(nonce, fresh ? round : 0),
    tag,
    Buffer.from([markerEtherType >> 8, markerEtherType & 0xff]),
    magic,
    Buffer.from([version]),
    nonce,
    Buffer.from([round, part, parts]),
    named(host),
    named(tap),
  ]);
  if (frame.length > frameBytesMax)
    throw new RangeError(`a marker has up to ${frameBytesMax} bytes, not ${frame.length}`);
  return Buffer.concat([frame, Buffer.alloc(Math.max(0, frameBytesMin + tag.length - frame.length))]);
}

/** What a frame says; null if it is no marker, or one of another version. */
export function decodeMarker(frame: Buffer): Marker | null {
  const at = payloadAt(frame);
  if (at === null) return null;
  const nonceAt = at + magic.length + 1;
  const roundAt = nonceAt + nonceBytes;
  const hostAt = roundAt + 3;
  if (hostAt >= frame.length || frame[at + magic.length] !== version) return null;
  const host = nameAt(frame, hostAt);
  const tap = host === null ? null : nameAt(frame, hostAt + 1 + Buffer.byteLength(host));
  if (host === null || tap === null) return null;
  const [round, part, parts] = frame.subarray(roundAt, hostAt) as unknown as [number, number, number];
  return { nonce: Buffer.from(frame.subarray(nonceAt, roundAt)), round, part, parts, host, tap };
}

/**
 * A locally administered group address: Open vSwitch never learns one (mac_learning_may_learn in its
 * lib/mac-learning.c).
 */
function sourceOf(nonce: Buffer, variant: number): Buffer {
  return Buffer.from([0x03, variant, ...nonce.subarray(0, 4)]);
}

function named(name: string): Buffer {
  const bytes = Buffer.from(name);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function nameAt(frame: Buffer, at: number): string | null {
  const length = frame[at];
  if (length === undefined || at + 1 + length > frame.length) return null;
  return frame.toString('utf8', at + 1, at + 1 + length);
}

/** Where the payload begins, behind the frame's tags. */
function payloadAt(frame: Buffer): number | null {
  let at = macsBytes;
  while (at + 2 <= frame.length && tagEtherTypes.includes(frame.readUInt16BE(at))) at += tagBytes;
  if (at + 2 + magic.length > frame.length || frame.readUInt16BE(at) !== markerEtherType) return null;
  return frame.subarray(at + 2, at + 2 + magic.length).equals(magic) ? at + 2 : null;
}
