const sectionStart = 0x04; // QEMU_VM_SECTION_FULL
const sectionFooter = 0x7e; // QEMU_VM_SECTION_FOOTER
const deviceName = Buffer.from('/virtio-net', 'ascii');
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
  const places: number[] = [];
  for (let at = state.indexOf(deviceName); at >= 0; at = state.indexOf(deviceName, at + 1)) {
    const range = sectionAround(state, at);
    const place = range === null ? null : lowerHalf(state, range);
    if (place !== null) places.push(place);
  }
  return places;
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

/** From behind the name of a section to its footer, which repeats its number; null if this is no section's name. */
function sectionAround(state: Buffer, inName: number): { from: number; to: number } | null {
  const end = inName + deviceName.length;
  for (let length = deviceName.length; length < 256 && end - length - 6 >= 0; length++) {
    const head = end - length - 6;
    if (state[head] !== sectionStart || state[head + 5] !== length) continue;
    const footer = Buffer.concat([Buffer.from([sectionFooter]), state.subarray(head + 1, head + 5)]);
    const to = state.indexOf(footer, end);
    if (to >= 0) return { from: end, to };
  }
  return null;
}
