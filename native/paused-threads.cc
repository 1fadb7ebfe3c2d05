#include "paused-threads.h"

#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "addon.h"

namespace staghorn {

static constexpr long kLookNs = 20000;

// Looks without taking the news away: Node.js may want to know how its own children fare.
static bool StandsStill(pid_t thread) {
  siginfo_t info = {};
  return waitid(P_PID, id_t(thread), &info, WSTOPPED | WEXITED | WNOHANG | WNOWAIT | __WALL) == 0 && info.si_pid == thread;
}

size_t PauseThreads(const std::vector<pid_t> &threads, int64_t bound_ns) {
  std::vector<pid_t> stopping;
  for (pid_t thread : threads) {
    if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0) continue;
    // From here on it runs no instruction of its own any more once it has left the kernel.
    if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) == 0) stopping.push_back(thread);
  }
  size_t still = 0;
  int64_t end_ns = MonotonicNs() + bound_ns;
  for (pid_t thread : stopping) {
    bool stands;
    while (!(stands = StandsStill(thread)) && MonotonicNs() < end_ns) {
      timespec pause = {0, kLookNs};
      nanosleep(&pause, nullptr);
    }
    still += stands;
  }
  return still;
}

}  // namespace staghorn
