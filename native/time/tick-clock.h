// The processor's own counter as a clock: finer and cheaper to read than CLOCK_MONOTONIC.
#pragma once

#include <cstdint>

namespace staghorn {

// Maps the counter (TSC, rdtsc; CNTVCT_EL0 on arm64) to CLOCK_MONOTONIC for the next millisecond or so. The rate is
// that of the kernel's own clock since this process was started, so NTP's slewing is in it.
class TickClock {
 public:
  // Takes its bearings now. Costs about a microsecond.
  TickClock();

  // False where the kernel does not trust the counter itself, or it is too coarse: then `Now` is CLOCK_MONOTONIC.
  static bool Usable();

  static uint64_t Ticks();
  uint64_t TicksAt(int64_t ns) const { return ticks_ + uint64_t(int64_t(double(ns - ns_) / ns_a_tick_)); }
  int64_t NsAt(uint64_t ticks) const { return ns_ + int64_t(double(int64_t(ticks - ticks_)) * ns_a_tick_); }

 private:
  uint64_t ticks_;
  int64_t ns_;
  double ns_a_tick_;
};

}  // namespace staghorn
