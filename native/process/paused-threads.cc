#include "process/paused-threads.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include <algorithm>

#include "addon.h"
#include "job.h"

namespace staghorn {

static constexpr size_t kStackBytes = 64 * 1024;
static constexpr long kLookNs = 50000;
static constexpr int kGraceMs = 20;  // for the tracer to get the CPU; without an answer by then nobody stands still

ThreadPauser::ThreadPauser(int realtime_priority)
    : process_(getpid()), realtime_priority_(realtime_priority), go_(eventfd(0, EFD_CLOEXEC)), done_(eventfd(0, EFD_CLOEXEC)),
      release_(eventfd(0, EFD_CLOEXEC)) {
  if (release_.get() < 0) throw SystemError(errno, "eventfd");
  keeper_ = std::thread(&ThreadPauser::Keep, this);
}

ThreadPauser::~ThreadPauser() {
  Release();
  keeper_.join();
}

void ThreadPauser::Release(std::function<void()> before) {
  if (released_.exchange(true)) return;
  before_ = std::move(before);
  eventfd_write(release_.get(), 1);
}

bool ThreadPauser::Holds(pid_t thread) const { return std::find(held_.begin(), held_.end(), thread) != held_.end(); }

void ThreadPauser::LetGo(pid_t thread) {
  auto place = std::find(held_.begin(), held_.end(), thread);
  if (place == held_.end()) return;
  ptrace(PTRACE_DETACH, thread, nullptr, nullptr);
  held_.erase(place);
}

size_t ThreadPauser::Pause(const std::vector<pid_t> &threads, int64_t bound_ns) {
  threads_ = threads;
  bound_ns_ = bound_ns;
  eventfd_write(go_.get(), 1);
  pollfd done = {done_.get(), POLLIN, 0};
  poll(&done, 1, int(bound_ns / 1000000) + kGraceMs);
  return stopped_.load();
}

// The thread in whose place the tracer runs (CLONE_VFORK), and whose end it is tied to.
void ThreadPauser::Keep() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  void *stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return;
  pid_t tracer = clone(TracerMain, static_cast<char *>(stack) + kStackBytes, CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_FS, this);
  if (tracer > 0) waitpid(tracer, nullptr, __WALL);
  munmap(stack, kStackBytes);
}

int ThreadPauser::TracerMain(void *data) {
  auto *self = static_cast<ThreadPauser *>(data);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != self->process_) _exit(1);
  signal(SIGCHLD, SIG_DFL);
  TryRealtime(self->realtime_priority_);
  pollfd orders[2] = {{self->go_.get(), POLLIN, 0}, {self->release_.get(), POLLIN, 0}};
  while (poll(orders, 2, -1) < 1) continue;
  if (orders[1].revents) _exit(0);
  self->stopped_ = self->StopAll();
  eventfd_write(self->done_.get(), 1);
  while (poll(&orders[1], 1, -1) != 1) continue;
  try {
    if (self->before_) self->before_();
  } catch (const SystemError &) {
    // They go on all the same.
  }
  _exit(0);
}

size_t ThreadPauser::StopAll() {
  for (pid_t thread : threads_) {
    if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0) continue;
    // From here on it runs no instruction of its own any more once it has left the kernel.
    if (ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) == 0) held_.push_back(thread);
  }
  int64_t end_ns = MonotonicNs() + bound_ns_;
  for (pid_t thread : held_) {
    while (waitpid(thread, nullptr, WNOHANG | __WALL) != thread && MonotonicNs() < end_ns) {
      timespec pause = {0, kLookNs};
      nanosleep(&pause, nullptr);
    }
  }
  return held_.size();
}

}  // namespace staghorn
