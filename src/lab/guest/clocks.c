// What the guest sees of time: gaps between wake-ups, jumps of its clocks against each other, and the TSC.
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

#include "probe.h"

int64_t clock_ns(int clock_id) {
  struct timespec now;
  clock_gettime(clock_id, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

struct sample {
  int64_t monotonic_ns, realtime_ns, boottime_ns, uncertainty_ns;
  uint64_t tsc;
};

// Reads all clocks within one bracket of CLOCK_MONOTONIC. The vCPU may lose its core between two reads, which
// would look like a jump: the tightest of a few brackets is taken, and its width is the sample's uncertainty.
static struct sample sample_clocks(void) {
  struct sample best = {.uncertainty_ns = INT64_MAX};
  for (int i = 0; i < 4 && best.uncertainty_ns > 20000; i++) {
    struct sample s;
    int64_t before = clock_ns(CLOCK_MONOTONIC);
    s.realtime_ns = clock_ns(CLOCK_REALTIME);
    s.tsc = __rdtsc();
    s.boottime_ns = clock_ns(CLOCK_BOOTTIME);
    int64_t after = clock_ns(CLOCK_MONOTONIC);
    s.monotonic_ns = before + (after - before) / 2;
    s.uncertainty_ns = after - before;
    if (s.uncertainty_ns < best.uncertainty_ns) best = s;
  }
  return best;
}

static int64_t beyond(int64_t difference, int64_t uncertainty) {
  int64_t size = llabs(difference) - uncertainty;
  return size > 0 ? size : 0;
}

static void raise_to(int64_t *largest, int64_t value) {
  if (value > *largest) *largest = value;
}

// The TSC's rate is measured over the first second; after that, each step of the TSC is compared with the same
// step of CLOCK_MONOTONIC.
static void observe_tsc(struct clocks *clocks, const struct sample *s) {
  if (clocks->base_monotonic_ns == 0) {
    clocks->base_monotonic_ns = s->monotonic_ns;
    clocks->base_tsc = s->tsc;
  } else if (!clocks->have_tsc) {
    int64_t elapsed_ns = s->monotonic_ns - clocks->base_monotonic_ns;
    if (elapsed_ns < 1000000000) return;
    clocks->tsc_per_ns = (double)(s->tsc - clocks->base_tsc) / (double)elapsed_ns;
    clocks->have_tsc = true;
  } else {
    double by_tsc_ns = (double)(int64_t)(s->tsc - clocks->last_tsc) / clocks->tsc_per_ns;
    int64_t difference = (int64_t)(by_tsc_ns - (double)(s->monotonic_ns - clocks->last_monotonic_ns));
    raise_to(&clocks->tsc_jump_ns, beyond(difference, s->uncertainty_ns + 20000));
  }
  clocks->last_tsc = s->tsc;
  clocks->last_monotonic_ns = s->monotonic_ns;
}

void observe_clocks(struct clocks *clocks) {
  struct sample s = sample_clocks();
  if (clocks->last_wake_ns != 0) {
    int64_t gap = s.monotonic_ns - clocks->last_wake_ns;
    raise_to(&clocks->largest_gap_ns, gap);
    raise_to(&clocks->second_gap_ns, gap);
  }
  clocks->last_wake_ns = s.monotonic_ns;
  if (s.uncertainty_ns > 1000000) return;
  int64_t realtime = s.realtime_ns - s.monotonic_ns, boottime = s.boottime_ns - s.monotonic_ns;
  int64_t slack = s.uncertainty_ns + clocks->offset_uncertainty_ns;
  if (clocks->have_offsets) {
    // Against the first offsets, not the last ones, so that many small steps cannot hide.
    raise_to(&clocks->jump_ns, beyond(realtime - clocks->realtime_offset_ns, slack));
    raise_to(&clocks->jump_ns, beyond(boottime - clocks->boottime_offset_ns, slack));
  } else if (s.uncertainty_ns <= 20000) {
    clocks->realtime_offset_ns = realtime;
    clocks->boottime_offset_ns = boottime;
    clocks->offset_uncertainty_ns = s.uncertainty_ns;
    clocks->have_offsets = true;
  }
  observe_tsc(clocks, &s);
}

void reset_clocks(struct clocks *clocks) { *clocks = (struct clocks){.last_wake_ns = clocks->last_wake_ns}; }
