#include "time/wake.h"

#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>

#include "addon.h"
#include "time/tick-clock.h"

namespace staghorn {

namespace {

int WaitForTimer(int timer, int cancel_fd) {
  pollfd fds[2] = {{timer, POLLIN, 0}, {cancel_fd, POLLIN, 0}};
  while (poll(fds, 2, -1) < 0) {
    if (errno != EINTR) return errno;
  }
  return fds[1].revents ? ECANCELED : 0;
}

// A timerfd is the same high-resolution timer as clock_nanosleep's, without timer slack, and can be waited for
// together with the cancellation.
void WaitUntil(int64_t at_ns, int cancel_fd) {
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (timer < 0) throw SystemError(errno, "timerfd_create");
  itimerspec when = {};
  when.it_value = {time_t(at_ns / 1000000000), long(at_ns % 1000000000)};
  int error = timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, nullptr) < 0 ? errno : WaitForTimer(timer, cancel_fd);
  close(timer);
  if (error != 0) throw SystemError(error, error == ECANCELED ? "cancelled" : "timerfd");
}

void ThrowIfCancelled(const JobControl &control) {
  if (control.cancelled.load(std::memory_order_relaxed)) throw SystemError(ECANCELED, "cancelled");
}

// No `pause` in this loop: on processors since Skylake it takes 140 cycles, more than the lateness that is wanted.
Wakeup SpinOnTicks(int64_t at_ns, const JobControl &control) {
  TickClock clock;
  uint64_t target = clock.TicksAt(at_ns), before = TickClock::Ticks(), longest = 0;
  for (;;) {
    uint64_t now = TickClock::Ticks();
    longest = std::max(longest, now - before);
    if (int64_t(now - target) >= 0) return {std::max(clock.NsAt(now), at_ns), clock.NsAt(now) - clock.NsAt(now - longest)};
    ThrowIfCancelled(control);
    before = now;
  }
}

Wakeup SpinOnClock(int64_t at_ns, const JobControl &control) {
  int64_t before = MonotonicNs(), longest = 0;
  for (;;) {
    ThrowIfCancelled(control);
    int64_t now = MonotonicNs();
    longest = std::max(longest, now - before);
    if (now >= at_ns) return {now, longest};
    before = now;
  }
}

}  // namespace

Wakeup SleepUntil(int64_t at_ns, int64_t spin_ns, const JobControl &control) {
  if (at_ns - spin_ns > MonotonicNs()) WaitUntil(at_ns - spin_ns, control.cancel_fd);
  return TickClock::Usable() && MonotonicNs() < at_ns ? SpinOnTicks(at_ns, control) : SpinOnClock(at_ns, control);
}

}  // namespace staghorn
