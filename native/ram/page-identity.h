// The identity of a page: 128 bits that differ where pages differ, for everybody who does not know the key.
#pragma once

#include <emmintrin.h>

#include <cstdint>

#include "ram/ram-pages.h"

namespace staghorn {

struct PageIdentity {
  uint64_t low, high;
  bool operator==(const PageIdentity &other) const { return low == other.low && high == other.high; }
  bool IsZero() const { return (low | high) == 0; }
};

constexpr size_t kKeyBytes = 16;

// The page as a polynomial over GF(2^128), evaluated at a secret point: two given pages share an identity for at most 256
// of the 2^128 keys (a polynomial of degree 256 has no more roots), however they were chosen (Wegman and Carter 1981;
// the field is GCM's, NIST SP 800-38D 6.3, with the bits in their natural order). A page of zeros has identity zero.
class PageHasher {
 public:
  static bool IsSupported();  // by this CPU
  explicit PageHasher(const uint8_t key[kKeyBytes]);
  PageIdentity Identify(const uint8_t *page) const;

 private:
  static constexpr size_t kBlocks = kPageBytes / 16;
  PageIdentity IdentifyByPairs(const uint8_t *page) const;
  alignas(32) __m128i powers_[kBlocks];  // of the key: from the 256th down to the first
};

}  // namespace staghorn
