// Threads of other processes that stand still for a moment.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "descriptor.h"

namespace staghorn {

// Stops threads by ptrace. The tracer is a process of its own that shares our memory, as in fork.cc: the stops of a VM
// that is a child of ours would end up in Node.js's own waitpid. It ends with this object, or with the thread that
// made it, also by a kill, and the kernel then lets them all go on (exit_ptrace in kernel/ptrace.c).
class ThreadPauser {
 public:
  // Starts the tracer, which stops nothing yet.
  explicit ThreadPauser(int realtime_priority);
  ~ThreadPauser();
  ThreadPauser(const ThreadPauser &) = delete;
  ThreadPauser &operator=(const ThreadPauser &) = delete;

  // Stops threads and waits until they stand, at most for `bound_ns`; may be called once. Whom somebody else traces
  // runs on. Returns how many were told to stop: one that gets no CPU by then stops before it does anything else.
  size_t Pause(const std::vector<pid_t> &threads, int64_t bound_ns);
  // Whether it was told to stop, and has not gone on.
  bool Holds(pid_t thread) const;
  // All go on, after `before` has run in the tracer, which is the only one that may call `LetGo`. Returns at once; may be
  // called again, and what it is then told to do before is not done.
  void Release(std::function<void()> before = nullptr);
  void LetGo(pid_t thread);

 private:
  static int TracerMain(void *self);
  void Keep();
  size_t StopAll();

  pid_t process_;
  int realtime_priority_;
  Descriptor go_, done_, release_;
  std::vector<pid_t> threads_;
  int64_t bound_ns_ = 0;
  std::vector<pid_t> held_;
  std::function<void()> before_;
  std::atomic<bool> released_{false};
  std::atomic<size_t> stopped_{0};
  std::thread keeper_;
};

}  // namespace staghorn
