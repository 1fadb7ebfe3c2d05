// Exact judgement of sequence numbers, and the byte pattern of the streams.
#include <string.h>

#include "probe.h"

static bool test_bit(const struct judge *judge, uint64_t n) {
  return judge->seen[n / 64 % (REMEMBERED / 64)] >> (n % 64) & 1;
}

static void put_bit(struct judge *judge, uint64_t n, bool value) {
  uint64_t *word = &judge->seen[n / 64 % (REMEMBERED / 64)];
  *word = value ? *word | 1ull << (n % 64) : *word & ~(1ull << (n % 64));
}

// Numbers begin at 1. A gap is "lost" when it falls out of LOSS_WINDOW; a frame that comes after that is taken
// off the losses again and counts as reordered.
void judge_sequence(struct judge *judge, uint64_t sequence) {
  if (sequence > judge->highest) {
    while (judge->highest < sequence) {
      judge->highest++;
      put_bit(judge, judge->highest, judge->highest == sequence);
      if (judge->highest > LOSS_WINDOW && !test_bit(judge, judge->highest - LOSS_WINDOW)) judge->lost++;
    }
    judge->received++;
  } else if (judge->highest - sequence >= REMEMBERED || test_bit(judge, sequence)) {
    judge->duplicated++;
  } else {
    put_bit(judge, sequence, true);
    judge->received++;
    judge->reordered++;
    if (judge->highest - sequence >= LOSS_WINDOW) judge->lost--;
  }
}

// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
static uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
  x = (x ^ x >> 27) * 0x94d049bb133111eb;
  return x ^ x >> 31;
}

uint64_t pair_seed(unsigned from, unsigned to) { return mix((uint64_t)from << 32 | to); }

void fill_pattern(uint8_t *bytes, size_t length, uint64_t seed, uint64_t position) {
  for (size_t done = 0; done < length;) {
    uint64_t block = mix(seed + position / 8);
    size_t skip = position % 8, n = 8 - skip < length - done ? 8 - skip : length - done;
    memcpy(bytes + done, (uint8_t *)&block + skip, n);
    done += n;
    position += n;
  }
}

size_t count_mismatches(const uint8_t *bytes, size_t length, uint64_t seed, uint64_t position) {
  uint8_t expected[1024];
  size_t mismatches = 0;
  for (size_t done = 0; done < length;) {
    size_t n = length - done < sizeof expected ? length - done : sizeof expected;
    fill_pattern(expected, n, seed, position + done);
    if (memcmp(expected, bytes + done, n) != 0) {
      for (size_t i = 0; i < n; i++) mismatches += expected[i] != bytes[done + i];
    }
    done += n;
  }
  return mismatches;
}
