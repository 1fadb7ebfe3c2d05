#include "process/vcpu-hold.h"

#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "addon.h"

namespace staghorn {

namespace {

constexpr long kLookNs = 20000;

size_t ReadTask(pid_t thread, const char *file, char *text, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%d/%s", thread, thread, file);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t length = read(fd, text, size - 1);
  close(fd);
  text[length > 0 ? length : 0] = 0;
  return length > 0 ? size_t(length) : 0;
}

// The number of the system call that a thread sleeps in (proc(5)); -1 while it runs or wants to, or if it is gone.
long SleepsIn(pid_t thread) {
  char text[128];
  if (ReadTask(thread, "syscall", text, sizeof text) == 0 || text[0] < '0' || text[0] > '9') return -1;
  return strtol(text, nullptr, 10);
}

// How often it was given a processor: the third number of schedstat (Documentation/scheduler/sched-stats.rst).
uint64_t RunsOf(pid_t thread) {
  char text[128];
  unsigned long long runs = 0;
  if (ReadTask(thread, "schedstat", text, sizeof text) == 0 || sscanf(text, "%*u %*u %llu", &runs) != 1) return 0;
  return runs;
}

void Sleep(long ns) {
  timespec pause = {0, ns};
  nanosleep(&pause, nullptr);
}

}  // namespace

VcpuHold::VcpuHold(std::vector<HeldVm> vms, int realtime_priority) : ThreadPauser(realtime_priority), vms_(std::move(vms)), runs_(vms_.size()) {}

void VcpuHold::Hold(int64_t bound_ns) {
  std::vector<pid_t> vcpus;
  for (size_t i = 0; i < vms_.size(); i++) {
    runs_[i] = RunsOf(vms_[i].main);
    vcpus.insert(vcpus.end(), vms_[i].vcpus.begin(), vms_[i].vcpus.end());
  }
  bound_ns_ = bound_ns;
  Pause(vcpus, bound_ns);
}

void VcpuHold::Order(When when, int64_t bound_ns) {
  when_ = when;
  bound_ns_ = bound_ns;
  Release();
}

VcpuHold::Main VcpuHold::StateOf(size_t vm) const {
  long call = SleepsIn(vms_[vm].main);
  bool has_run = when_ == When::Awaited || RunsOf(vms_[vm].main) > runs_[vm];
  if (!has_run) return Main::Busy;
  return call == SYS_futex ? Main::Awaits : call == SYS_ppoll ? Main::Served : Main::Busy;
}

void VcpuHold::BeforeTheyGo() {
  std::vector<bool> gone(vms_.size(), false);
  for (int64_t end_ns = MonotonicNs() + bound_ns_; MonotonicNs() < end_ns;) {
    bool all = true;
    for (size_t i = 0; i < vms_.size(); i++) {
      if (gone[i]) continue;
      Main state = StateOf(i);
      if (state == Main::Awaits) {
        gone[i] = true;
        for (pid_t vcpu : vms_[i].vcpus) ptrace(PTRACE_DETACH, vcpu, nullptr, nullptr);
      } else if (when_ == When::Awaited || state == Main::Busy) {
        all = false;
      }
    }
    if (all) return;
    Sleep(kLookNs);
  }
}

}  // namespace staghorn
