#include "ram/page-identity.h"

#include <immintrin.h>

#include <cstring>

#include "addon.h"

namespace staghorn {

// 256 bits of a product that is not reduced yet.
struct Product {
  __m128i low, middle, high;
};

__attribute__((target("pclmul"))) static inline void AddProduct(Product &sum, __m128i a, __m128i b) {
  sum.low = _mm_xor_si128(sum.low, _mm_clmulepi64_si128(a, b, 0x00));
  sum.high = _mm_xor_si128(sum.high, _mm_clmulepi64_si128(a, b, 0x11));
  sum.middle = _mm_xor_si128(sum.middle, _mm_clmulepi64_si128(a, b, 0x01));
  sum.middle = _mm_xor_si128(sum.middle, _mm_clmulepi64_si128(a, b, 0x10));
}

// Modulo x^128 + x^7 + x^2 + x + 1: what is above bit 127 comes in again times 0x87, from the top down.
__attribute__((target("pclmul"))) static inline __m128i Reduce(const Product &sum) {
  const __m128i fold = _mm_set_epi64x(0, 0x87);
  __m128i low = _mm_xor_si128(sum.low, _mm_slli_si128(sum.middle, 8));
  __m128i high = _mm_xor_si128(sum.high, _mm_srli_si128(sum.middle, 8));
  __m128i top = _mm_clmulepi64_si128(high, fold, 0x01);
  low = _mm_xor_si128(low, _mm_slli_si128(top, 8));
  high = _mm_xor_si128(high, _mm_srli_si128(top, 8));
  return _mm_xor_si128(low, _mm_clmulepi64_si128(high, fold, 0x00));
}

static __m128i Multiply(__m128i a, __m128i b) {
  Product product = {};
  AddProduct(product, a, b);
  return Reduce(product);
}

bool PageHasher::IsSupported() { return __builtin_cpu_supports("pclmul"); }

PageHasher::PageHasher(const uint8_t key[kKeyBytes]) {
  __m128i point = _mm_loadu_si128(reinterpret_cast<const __m128i *>(key)), power = point;
  for (size_t i = kBlocks; i-- > 0; power = Multiply(power, point)) powers_[i] = power;
}

__attribute__((target("avx2"))) static inline __m128i Folded(__m256i sum) {
  return _mm_xor_si128(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
}

// The same as below, two blocks at a time.
__attribute__((target("pclmul,avx2,vpclmulqdq"))) PageIdentity PageHasher::IdentifyByPairs(const uint8_t *page) const {
  const __m256i *blocks = reinterpret_cast<const __m256i *>(page), *powers = reinterpret_cast<const __m256i *>(powers_);
  __m256i low = _mm256_setzero_si256(), middle = low, other = low, high = low;
  for (size_t i = 0; i < kBlocks / 2; i++) {
    const __m256i block = _mm256_loadu_si256(blocks + i), power = _mm256_load_si256(powers + i);
    low = _mm256_xor_si256(low, _mm256_clmulepi64_epi128(block, power, 0x00));
    high = _mm256_xor_si256(high, _mm256_clmulepi64_epi128(block, power, 0x11));
    middle = _mm256_xor_si256(middle, _mm256_clmulepi64_epi128(block, power, 0x01));
    other = _mm256_xor_si256(other, _mm256_clmulepi64_epi128(block, power, 0x10));
  }
  const __m128i value = Reduce({Folded(low), Folded(_mm256_xor_si256(middle, other)), Folded(high)});
  PageIdentity identity;
  memcpy(&identity, &value, sizeof identity);
  return identity;
}

// All products are summed before the one reduction: no step waits for the one before.
__attribute__((target("pclmul"))) PageIdentity PageHasher::Identify(const uint8_t *page) const {
  static const bool by_pairs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("vpclmulqdq");
  if (by_pairs) return IdentifyByPairs(page);
  const __m128i *blocks = reinterpret_cast<const __m128i *>(page);
  Product even = {}, odd = {};
  for (size_t i = 0; i < kBlocks; i += 2) {
    AddProduct(even, _mm_loadu_si128(blocks + i), powers_[i]);
    AddProduct(odd, _mm_loadu_si128(blocks + i + 1), powers_[i + 1]);
  }
  const Product sum = {_mm_xor_si128(even.low, odd.low), _mm_xor_si128(even.middle, odd.middle), _mm_xor_si128(even.high, odd.high)};
  __m128i value = Reduce(sum);
  PageIdentity identity;
  memcpy(&identity, &value, sizeof identity);
  return identity;
}

// identifyPage(key, page): for those who check what is stored.
static Napi::Value IdentifyPage(const Napi::CallbackInfo &info) {
  const PageHasher hasher(info[0].As<Napi::Uint8Array>().Data());
  PageIdentity identity = hasher.Identify(info[1].As<Napi::Uint8Array>().Data());
  return Napi::Buffer<uint8_t>::Copy(info.Env(), reinterpret_cast<uint8_t *>(&identity), sizeof identity);
}

static Facility identity_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("canIdentifyPages", Napi::Boolean::New(env, PageHasher::IsSupported()));
  exports.Set("identifyPage", Napi::Function::New<IdentifyPage>(env));
});

}  // namespace staghorn
