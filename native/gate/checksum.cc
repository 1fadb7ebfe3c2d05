#include "gate/checksum.h"

#include <nmmintrin.h>

#include <array>
#include <cstring>

#include "addon.h"

namespace staghorn {

static constexpr uint32_t kPolynomial = 0x82f63b78;  // reflected

static std::array<uint32_t, 256> MakeTable() {
  std::array<uint32_t, 256> table;
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? kPolynomial : 0);
    table[i] = crc;
  }
  return table;
}

static uint32_t TableCrc(uint32_t crc, const uint8_t *data, size_t length) {
  static const std::array<uint32_t, 256> table = MakeTable();
  while (length--) crc = (crc >> 8) ^ table[(crc ^ *data++) & 0xff];
  return crc;
}

__attribute__((target("sse4.2"))) static uint32_t HardwareCrc(uint32_t crc32, const uint8_t *data, size_t length) {
  uint64_t crc = crc32, word;
  for (; length >= 8; data += 8, length -= 8) {
    memcpy(&word, data, 8);
    crc = _mm_crc32_u64(crc, word);
  }
  while (length--) crc = _mm_crc32_u8(uint32_t(crc), *data++);
  return uint32_t(crc);
}

// The instruction has a latency of three cycles: three streams at once keep it busy.
__attribute__((target("sse4.2"))) static void HardwareCrc3(uint32_t crc[3], const uint8_t *data, size_t third) {
  uint64_t a = crc[0], b = crc[1], c = crc[2], word[3];
  for (size_t i = 0; i < third; i += 8) {
    memcpy(&word[0], data + i, 8);
    memcpy(&word[1], data + third + i, 8);
    memcpy(&word[2], data + 2 * third + i, 8);
    a = _mm_crc32_u64(a, word[0]);
    b = _mm_crc32_u64(b, word[1]);
    c = _mm_crc32_u64(c, word[2]);
  }
  crc[0] = uint32_t(a);
  crc[1] = uint32_t(b);
  crc[2] = uint32_t(c);
}

// Product of two polynomials modulo the generator; bit 31 is x^0, as the reflected checksum has it.
static uint32_t MultiplyModulo(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 1u << 31; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b >> 1) ^ (b & 1 ? kPolynomial : 0);
  }
  return product;
}

// x^(8 * bytes) modulo the generator, by squaring.
static uint32_t PowerOfBytes(uint64_t bytes) {
  uint32_t power = 1u << 31, square = 1u << 23;  // x^0 and x^8
  for (; bytes != 0; bytes >>= 1) {
    if (bytes & 1) power = MultiplyModulo(power, square);
    square = MultiplyModulo(square, square);
  }
  return power;
}

uint32_t Crc32cCombine(uint32_t a, uint32_t b, uint64_t length_b) { return MultiplyModulo(PowerOfBytes(length_b), a) ^ b; }

uint32_t Crc32c(uint32_t seed, const void *bytes, size_t length) {
  static const bool hardware = __builtin_cpu_supports("sse4.2");
  const uint8_t *data = static_cast<const uint8_t *>(bytes);
  if (!hardware) return ~TableCrc(~seed, data, length);
  constexpr size_t kWorthSplitting = 16384;
  if (length >= kWorthSplitting) {
    size_t third = length / 24 * 8;
    uint32_t crc[3] = {~seed, ~0u, ~0u};
    HardwareCrc3(crc, data, third);
    uint32_t power = PowerOfBytes(third);
    seed = MultiplyModulo(power, ~crc[0]) ^ ~crc[1];
    seed = MultiplyModulo(power, seed) ^ ~crc[2];
    data += 3 * third;
    length -= 3 * third;
  }
  return ~HardwareCrc(~seed, data, length);
}

static Napi::Value Crc32cOf(const Napi::CallbackInfo &info) {
  Napi::Uint8Array data = info[0].As<Napi::Uint8Array>();
  uint32_t seed = info[1].As<Napi::Number>().Uint32Value();
  return Napi::Number::New(info.Env(), Crc32c(seed, data.Data(), data.ByteLength()));
}

static Facility checksum_facility(
    [](Napi::Env env, Napi::Object exports) { exports.Set("crc32c", Napi::Function::New<Crc32cOf>(env)); });

}  // namespace staghorn
