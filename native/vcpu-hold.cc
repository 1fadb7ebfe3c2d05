#include "vcpu-hold.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "addon.h"
#include "job.h"

namespace staghorn {

namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr long kLookNs = 20000;
constexpr int kGraceMs = 20;

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

VcpuHold::VcpuHold(std::vector<HeldVm> vms, int realtime_priority)
    : vms_(std::move(vms)), runs_(vms_.size()), process_(getpid()), realtime_priority_(realtime_priority), go_(eventfd(0, EFD_CLOEXEC)),
      done_(eventfd(0, EFD_CLOEXEC)), order_(eventfd(0, EFD_CLOEXEC)) {
  if (order_.get() < 0) throw SystemError(errno, "eventfd");
  keeper_ = std::thread(&VcpuHold::Keep, this);
}

VcpuHold::~VcpuHold() {
  eventfd_write(order_.get(), 1);
  eventfd_write(go_.get(), 1);
  keeper_.join();
}

void VcpuHold::Hold(int64_t bound_ns) {
  bound_ns_ = bound_ns;
  for (size_t i = 0; i < vms_.size(); i++) runs_[i] = RunsOf(vms_[i].main);
  eventfd_write(go_.get(), 1);
  pollfd done = {done_.get(), POLLIN, 0};
  poll(&done, 1, int(bound_ns / 1000000) + kGraceMs);
}

void VcpuHold::Order(Release when, int64_t bound_ns) {
  when_ = when;
  bound_ns_ = bound_ns;
  eventfd_write(order_.get(), 1);
}

// The thread in whose place the tracer runs (CLONE_VFORK), and whose end it is tied to.
void VcpuHold::Keep() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  void *stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return;
  pid_t tracer = clone(TracerMain, static_cast<char *>(stack) + kStackBytes, CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS, this);
  if (tracer > 0) waitpid(tracer, nullptr, __WALL);
  munmap(stack, kStackBytes);
}

int VcpuHold::TracerMain(void *data) {
  auto *self = static_cast<VcpuHold *>(data);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != self->process_) _exit(1);
  signal(SIGCHLD, SIG_DFL);
  TryRealtime(self->realtime_priority_);
  pollfd go = {self->go_.get(), POLLIN, 0}, order = {self->order_.get(), POLLIN, 0};
  while (poll(&go, 1, -1) != 1) continue;
  if (poll(&order, 1, 0) == 1) _exit(0);
  self->HoldAll();
  eventfd_write(self->done_.get(), 1);
  while (poll(&order, 1, -1) != 1) continue;
  self->LetGo();
  _exit(0);
}

void VcpuHold::HoldAll() const {
  std::vector<pid_t> stopping;
  for (const HeldVm &vm : vms_) {
    for (pid_t vcpu : vm.vcpus) {
      // From here on it runs no instruction of its own any more once it has left the kernel.
      if (ptrace(PTRACE_SEIZE, vcpu, nullptr, nullptr) == 0 && ptrace(PTRACE_INTERRUPT, vcpu, nullptr, nullptr) == 0) stopping.push_back(vcpu);
    }
  }
  int64_t end_ns = MonotonicNs() + bound_ns_;
  for (pid_t vcpu : stopping) {
    while (waitpid(vcpu, nullptr, WNOHANG | __WALL) != vcpu && MonotonicNs() < end_ns) Sleep(kLookNs);
  }
}

VcpuHold::Main VcpuHold::StateOf(size_t vm) const {
  long call = SleepsIn(vms_[vm].main);
  bool has_run = when_ == Release::Awaited || RunsOf(vms_[vm].main) > runs_[vm];
  if (!has_run) return Main::Busy;
  return call == SYS_futex ? Main::Awaits : call == SYS_ppoll ? Main::Served : Main::Busy;
}

void VcpuHold::LetGo() const {
  std::vector<bool> gone(vms_.size(), false);
  for (int64_t end_ns = MonotonicNs() + bound_ns_; MonotonicNs() < end_ns;) {
    bool all = true;
    for (size_t i = 0; i < vms_.size(); i++) {
      if (gone[i]) continue;
      Main state = StateOf(i);
      if (state == Main::Awaits) {
        gone[i] = true;
        for (pid_t vcpu : vms_[i].vcpus) ptrace(PTRACE_DETACH, vcpu, nullptr, nullptr);
      } else if (when_ == Release::Awaited || state == Main::Busy) {
        all = false;
      }
    }
    if (all) return;
    Sleep(kLookNs);
  }
}

}  // namespace staghorn
