const MAX_SLOTS = 4096;
const MIN_RING_BYTES = 256 * 1024;
const MAX_RING_BYTES = 1024 * 1024 * 1024;

/** Refuses sizes that a gate cannot have, before the kernel does so with a bare EINVAL. Throws a RangeError. */
export function requireGateSizes(slots: number, ringBytes: number): void {
  if (!Number.isInteger(slots) || slots < 1 || slots > MAX_SLOTS) {
    throw new RangeError(`a gate has 1 to ${MAX_SLOTS} slots, not ${slots}`);
  }
  const fits = Number.isInteger(ringBytes) && ringBytes >= MIN_RING_BYTES && ringBytes <= MAX_RING_BYTES;
  if (!fits || (ringBytes & (ringBytes - 1)) !== 0) {
    throw new RangeError(
      `a ring has ${MIN_RING_BYTES} to ${MAX_RING_BYTES} bytes, a power of two, not ${ringBytes}`,
    );
  }
}
