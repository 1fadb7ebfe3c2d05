#include "time/tick-clock.h"

#include <cstdio>
#include <cstring>
#include <ctime>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "addon.h"

namespace staghorn {

namespace {

constexpr double kCoarsestNs = 2;  // a tick of a counter of 500 MHz
constexpr int kPairs = 12;

struct Pair {
  uint64_t ticks;
  int64_t ns;
};

// Of several readings of both, the one that was disturbed least.
Pair ReadPair() {
  Pair best{};
  uint64_t width = UINT64_MAX;
  for (int i = 0; i < kPairs; i++) {
    uint64_t before = TickClock::Ticks();
    int64_t ns = MonotonicNs();
    uint64_t after = TickClock::Ticks();
    if (after - before >= width) continue;
    width = after - before;
    best = {before + width / 2, ns};
  }
  return best;
}

// As early as can be: the rate is taken over the time since then.
const Pair kBegin = ReadPair();

bool IsKernelsClock() {
#if defined(__x86_64__)
  char name[16] = {};
  FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
  if (file == nullptr) return false;
  bool read = fgets(name, sizeof name, file) != nullptr;
  fclose(file);
  return read && strncmp(name, "tsc", 3) == 0;
#else
  return true;
#endif
}

double NsATick(const Pair &now) {
  uint64_t ticks = now.ticks - kBegin.ticks;
  return ticks == 0 ? 0 : double(now.ns - kBegin.ns) / double(ticks);
}

}  // namespace

uint64_t TickClock::Ticks() {
#if defined(__x86_64__)
  return __rdtsc();
#elif defined(__aarch64__)
  uint64_t ticks;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
  return uint64_t(MonotonicNs());
#endif
}

bool TickClock::Usable() {
  static const bool usable = IsKernelsClock() && NsATick(ReadPair()) > 0 && NsATick(ReadPair()) <= kCoarsestNs;
  return usable;
}

TickClock::TickClock() {
  Pair now = ReadPair();
  ticks_ = now.ticks;
  ns_ = now.ns;
  ns_a_tick_ = NsATick(now);
}

}  // namespace staghorn
