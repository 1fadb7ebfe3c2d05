// Waking at an instant.
#pragma once

#include <cstdint>

#include "job.h"

namespace staghorn {

struct Wakeup {
  int64_t woke_ns;  // CLOCK_MONOTONIC
  // The longest that the thread was away while it spun: an interrupt, or the hypervisor took the processor.
  int64_t longest_gap_ns;
};

// Sleeps until an instant of CLOCK_MONOTONIC: by a timer up to `spin_ns` before it, then by reading the processor's
// counter. Throws SystemError ECANCELED when cancelled.
Wakeup SleepUntil(int64_t at_ns, int64_t spin_ns, const JobControl &control);

}  // namespace staghorn
