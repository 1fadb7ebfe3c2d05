// Judges what an endpoint receives: copies, order, tags and the time under way, a flow at a time.
#include <stdlib.h>
#include <string.h>

#include "traffic.h"

enum { BUCKETS_AN_OCTAVE = 8 };

// Eight buckets an octave, from 1 ns on: what lies in one differs by less than an eighth.
static uint32_t bucket_of(int64_t ns) {
  uint64_t value = ns < 1 ? 1 : (uint64_t)ns;
  uint32_t octave = 63 - (uint32_t)__builtin_clzll(value);
  uint32_t part = octave < 3 ? 0 : (uint32_t)(value >> (octave - 3)) & 7;
  uint32_t bucket = octave * BUCKETS_AN_OCTAVE + part;
  return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

static int64_t end_of_bucket(uint32_t bucket) {
  double octave = (double)(1ull << (bucket / BUCKETS_AN_OCTAVE));
  return (int64_t)(octave * (1 + (bucket % BUCKETS_AN_OCTAVE + 1) / (double)BUCKETS_AN_OCTAVE));
}

int64_t latency_at(const struct tally *tally, double share) {
  uint64_t below = 0, wanted = (uint64_t)((double)tally->frames * share);
  for (uint32_t bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
    below += tally->latency[bucket];
    if (below > wanted) return end_of_bucket(bucket) < tally->latency_max_ns ? end_of_bucket(bucket) : tally->latency_max_ns;
  }
  return tally->latency_max_ns;
}

static bool mark_seen(struct tally *tally, uint64_t number) {
  uint64_t *word = &tally->seen[number % WINDOW / 64], bit = 1ull << number % 64;
  bool before = (*word & bit) != 0;
  *word |= bit;
  return before;
}

static void forget(struct tally *tally, uint64_t number) { tally->seen[number % WINDOW / 64] &= ~(1ull << number % 64); }

static void count_number(struct tally *tally, uint64_t number) {
  if (number + WINDOW < tally->expected) {
    tally->stale++;
  } else if (number < tally->expected) {
    if (mark_seen(tally, number)) tally->duplicated++;
    else tally->reordered++;
  } else {
    if (number - tally->expected >= WINDOW) memset(tally->seen, 0, sizeof tally->seen);
    else for (uint64_t gap = tally->expected; gap < number; gap++) forget(tally, gap);
    forget(tally, number);
    mark_seen(tally, number);
    tally->expected = number + 1;
  }
}

static void count_tags(struct tally *tally, const struct parsed *parsed) {
  if (tally->frames == 0) {
    tally->tags = parsed->tags;
    memcpy(tally->tag, parsed->tag, sizeof tally->tag);
  } else if (tally->tags != parsed->tags || memcmp(tally->tag, parsed->tag, sizeof tally->tag) != 0) {
    tally->retagged++;
  }
}

static void count_latency(struct tally *tally, int64_t ns) {
  if (tally->frames == 0 || ns < tally->latency_min_ns) tally->latency_min_ns = ns;
  if (tally->frames == 0 || ns > tally->latency_max_ns) tally->latency_max_ns = ns;
  tally->latency[bucket_of(ns)]++;
}

void take_frame(struct endpoint *endpoint, const uint8_t *frame, size_t length, bool unsegmented) {
  struct parsed parsed;
  enum verdict verdict = parse_frame(frame, length, &parsed);
  if (verdict == FRAME_FOREIGN) endpoint->counters.foreign++;
  if (verdict == FRAME_CORRUPTED) endpoint->counters.corrupted++;
  if (verdict != FRAME_GOOD) return;
  bool group = frame[0] & 1;
  if (!group && memcmp(frame, endpoint->mac, ETH_ALEN) != 0) {
    endpoint->counters.stray++;
    return;
  }
  struct tally *tally = endpoint->tally[parsed.flow];
  if (!tally) tally = endpoint->tally[parsed.flow] = calloc(1, sizeof *tally);
  if (!tally) fail("out of memory");
  if (parsed.padded) endpoint->counters.padded++;
  count_tags(tally, &parsed);
  count_latency(tally, virtual_ns(endpoint) - parsed.sent_ns);
  count_number(tally, parsed.number);
  tally->unsegmented += unsegmented;
  tally->frames++;
  tally->bytes += parsed.length;
}
