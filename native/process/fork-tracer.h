// The tracer: forks a traced process's memory into a held child, and stays its tracer until told to let go.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "process/fork-frame.h"

namespace staghorn {

// Shared by the tracer and the thread that started it. The tracer writes the results, then `state`.
struct ForkSession {
  pid_t pid = 0;
  std::vector<Region> regions;
  std::vector<Region> left_out;  // made MADV_DONTFORK for good: nobody forks QEMU for what is in there
  int64_t timeout_ns = 0;
  int go_fd = -1;        // readable: fork now
  int release_fd = -1;   // readable: let go
  int announce_fd = -1;  // readable: `state` has gone on
  pid_t keeper = 0;     // the process whose death ends the tracer

  // Preparation reads through maps and text of the process; it is done ahead, while nobody waits.
  enum State { kStarting, kPrepared, kForked, kFailed };
  std::atomic<int> state{kStarting};
  pid_t child = 0;
  int64_t fork_ns = 0, stopped_ns = 0;
  int error = 0;
  std::string what;
};

// The tracer's whole life, in a process of its own that shares this one's memory. For clone(2).
int TracerMain(void *session);

}  // namespace staghorn
