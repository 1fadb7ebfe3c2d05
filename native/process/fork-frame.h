// The way back for a tracee: a chain of signal frames on its own stack which, without any tracer, puts it back.
#pragma once

#include <sys/types.h>
#include <sys/user.h>

#include <cstdint>
#include <string>
#include <vector>

namespace staghorn {

struct Region {
  uint64_t address, length;
};

// Instructions found in the tracee's own text.
struct Gadgets {
  uint64_t syscall_ret = 0;  // syscall; ret
  uint64_t sigreturn = 0;    // mov $15,%rax; syscall: libc's signal restorer
};

// Throws SystemError: EINVAL where a region is not mapped private throughout, ENOTSUP where a gadget is missing.
void CheckRegions(pid_t pid, const std::vector<Region> &regions);
Gadgets FindGadgets(pid_t pid);

// What a thread was doing, for a way back.
struct ThreadState {
  user_regs_struct regs;
  uint64_t signal_mask;
  std::vector<uint8_t> xstate;  // as PTRACE_GETREGSET NT_X86_XSTATE gives it
};

// The registers that make the thread go on as if it had never been stopped: an interrupted system call is begun again.
user_regs_struct ResumeRegisters(const user_regs_struct &stopped);

// Bytes to lie at `base` in the tracee, and the stack pointers whose `ret` starts each chain.
struct WayBack {
  std::vector<uint8_t> bytes;
  uint64_t base;
  uint64_t restore_stack;  // reaps a forked child, makes regions DONTFORK, restores the thread
  uint64_t exit_stack;     // exit_group(0)
};

WayBack BuildWayBack(const ThreadState &state, const std::vector<Region> &regions, const Gadgets &gadgets);
// The first frame of the restoring chain, made to wait until the child is dead instead of only looking. For a process
// that has no children of this kind (made by a bare clone) but the one that is about to be made.
std::vector<uint8_t> WaitingReapFrame(const WayBack &way, const Gadgets &gadgets);

}  // namespace staghorn
