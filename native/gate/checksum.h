// CRC-32C (Castagnoli, RFC 3720 appendix B.4): polynomial 0x1EDC6F41 reflected, initial value and final xor all ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace staghorn {

// The checksum of what `seed` is the checksum of, followed by `data`.
uint32_t Crc32c(uint32_t seed, const void *data, size_t length);

// The checksum of A followed by B, from theirs and B's length.
uint32_t Crc32cCombine(uint32_t a, uint32_t b, uint64_t length_b);

}  // namespace staghorn
