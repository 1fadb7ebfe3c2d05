// Threads of other processes that stand still for as long as the thread that stopped them lives.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace staghorn {

// Stops threads by ptrace and waits until they stand, at most for `bound_ns`. Whom somebody else traces runs on.
// There is nothing to undo: the kernel lets them all go on when the calling thread ends, also by a kill (exit_ptrace
// in kernel/ptrace.c), with the signals that came to them meanwhile.
// Returns how many stand still.
size_t PauseThreads(const std::vector<pid_t> &threads, int64_t bound_ns);

}  // namespace staghorn
