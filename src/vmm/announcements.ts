import { findSectionsBySuffix } from './state-sections.ts';

const deviceName = '/virtio-net';
const features = Buffer.from('\u0005\u0015virtio/64bit_features', 'latin1');
const versionBytes = 4;
const featureBytes = 8;
/** Of virtio_net_config, whose length stands behind the features' lower half (hw/virtio/virtio.c, virtio_save). */
const configBytesMax = 256;
/** VIRTIO_NET_F_GUEST_ANNOUNCE is bit 21 (include/uapi/linux/virtio_net.h); the number is big-endian. */
const announceBit = { byte: 1, mask: 0x20 } as const;

/**
 * A device state whose virtio NICs arm no announcement when they are loaded. QEMU 7.2 frees the timer of announcements
 * when it loads such a NIC while `announce-rounds` is 0, and stops it, freed, when the guest resets the NIC later: a
 * restored VM that rebooted took its QEMU with it. It asks for the feature in the lower half of the features alone, and
 * sets all of them from a copy afterwards, which stays as it is (hw/net/virtio-net.c, virtio_net_post_load_device and
 * virtio_net_reset; hw/virtio/virtio.c, virtio_load). Legacy devices, which have no copy, stay as they are too.
 */
export function withoutAnnouncements(state: Buffer): Buffer {
  const changed = Buffer.from(state);
  for (const place of lowerHalves(state)) {
    const byte = place + announceBit.byte;
    changed.writeUInt8(changed.readUInt8(byte) & ~announceBit.mask, byte);
  }
  return changed;
}

/** How many virtio NICs of a device state arm no announcement then. */
export function silencedNics(state: Buffer): number {
  return lowerHalves(state).length;
}

function lowerHalves(state: Buffer): number[] {
  const places = findSectionsBySuffix(state, deviceName).map((range) => lowerHalf(state, range));
  return places.filter((place) => place !== null);
}

/** Where the lower half of a NIC's features stands, which its copy tells; null if that cannot be told. */
function lowerHalf(state: Buffer, { from, to }: { from: number; to: number }): number | null {
  const copy = state.indexOf(features, from);
  if (copy < 0 || copy >= to) return null;
  const value = copy + features.length + versionBytes;
  const lower = state.subarray(value + featureBytes / 2, value + featureBytes);
  for (let at = state.indexOf(lower, from); at >= 0 && at < copy; at = state.indexOf(lower, at + 1)) {
    const configBytes = state.readUInt32BE(at + lower.length);
    if (configBytes > 0 && configBytes <= configBytesMax) return at;
  }
  return null;
}
