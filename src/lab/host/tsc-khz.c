// Prints the machine's TSC frequency in kHz, measured against CLOCK_MONOTONIC_RAW for a fifth of a second. Each end is
// the tightest of many readings, so that losing the processor in one of them does no harm.
#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

struct reading {
  int64_t ns;
  uint64_t tsc;
};

static int64_t raw_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static struct reading read_both(void) {
  struct reading best = {0};
  int64_t tightest = INT64_MAX;
  for (int i = 0; i < 1000; i++) {
    int64_t before = raw_ns();
    uint64_t tsc = __rdtsc();
    int64_t width = raw_ns() - before;
    if (width >= tightest) continue;
    tightest = width;
    best = (struct reading){before + width / 2, tsc};
  }
  return best;
}

int main(void) {
  struct timespec pause = {.tv_nsec = 200000000};
  struct reading from = read_both();
  nanosleep(&pause, NULL);
  struct reading to = read_both();
  printf("%.0f\n", (double)(to.tsc - from.tsc) * 1e6 / (double)(to.ns - from.ns));
}
