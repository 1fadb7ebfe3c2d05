// How a QEMU's memory is forked, by ptrace of its main thread only:
//
//   main thread M: madvise(DOFORK) each region; madvise(DONTFORK) what is left out; clone(CLONE_VM) -> C; wait4(C);
//                  madvise(DONTFORK) each region; goes on
//   C: clone() -> G, then is killed.    G: the image; closes its descriptors, and is held until released.
//
// Why C in between: M must not have G as its child. It would be a zombie in QEMU when it dies, which QEMU would
// never wait for; with CLONE_PARENT it would be the zombie of libvirt or minimega. C shares M's memory, so the page
// tables are copied once only (by G), M reaps C before it goes on, and G belongs to init, which reaps it.
//
// Why a process of its own for the tracer, and not a thread: where QEMU is a child of this process, libuv's
// waitpid() would take the tracer's ptrace stops for the child's exit (wait4 of a parent sees the stops of children
// that its own thread group traces). It shares our memory as a vfork(2) child does.
//
// If the tracer dies: G and C die with it (PTRACE_O_EXITKILL, which G inherits from C); M finds its way back
// by itself, on a chain of signal frames below its stack pointer (fork-frame.h).
#include "process/fork-tracer.h"

#include <elf.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "addon.h"
#include "job.h"

namespace staghorn {

namespace {

constexpr uint64_t kUserCs = 0x33;
constexpr int kRetriesMax = 1000;
constexpr size_t kXstateMax = 16384;

struct ProcessStatus {
  int tracer = 0, seccomp = 0;
};

ProcessStatus ReadStatus(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/status");
  if (!file) throw SystemError(ESRCH, "there is no process " + std::to_string(pid));
  ProcessStatus status;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("TracerPid:", 0) == 0) status.tracer = std::stoi(line.substr(10));
    if (line.rfind("Seccomp:", 0) == 0) status.seccomp = std::stoi(line.substr(8));
  }
  return status;
}

class Deadline {
 public:
  void Begin(int64_t timeout_ns) { at_ns_ = MonotonicNs() + timeout_ns; }
  // Waits for a SIGCHLD (blocked in this process), with which every ptrace stop is announced.
  void WaitForChild() const {
    int64_t left = at_ns_ - MonotonicNs();
    if (left <= 0) throw SystemError(ETIMEDOUT, "the process did not stop in time");
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    timespec timeout = {time_t(left / 1000000000), long(left % 1000000000)};
    sigtimedwait(&set, nullptr, &timeout);
  }

 private:
  int64_t at_ns_ = 0;
};

// One thread under ptrace, and the calls that are made in it.
class Tracee {
 public:
  Tracee(pid_t tid, const char *name, const Deadline *deadline) : tid_(tid), name_(name), deadline_(deadline) {}

  pid_t tid() const { return tid_; }
  pid_t cloned() const { return cloned_; }
  const std::vector<int> &held_signals() const { return held_signals_; }

  void Request(int request, void *address, const void *data, const char *what) const {
    if (ptrace(static_cast<__ptrace_request>(request), tid_, address, data) < 0)
      throw SystemError(errno, std::string(what) + " of the " + name_);
  }
  user_regs_struct Registers() const {
    user_regs_struct regs;
    Request(PTRACE_GETREGS, nullptr, &regs, "PTRACE_GETREGS");
    return regs;
  }
  void SetRegisters(const user_regs_struct &regs) const { Request(PTRACE_SETREGS, nullptr, &regs, "PTRACE_SETREGS"); }
  void SetSignalMask(uint64_t mask) const {
    Request(PTRACE_SETSIGMASK, reinterpret_cast<void *>(sizeof mask), &mask, "PTRACE_SETSIGMASK");
  }

  // Waits for the next stop and returns its wait status.
  int WaitStop() const {
    for (;;) {
      int status;
      pid_t got = waitpid(tid_, &status, __WALL | WNOHANG);
      if (got < 0 && errno != EINTR) throw SystemError(errno, std::string("waitpid for the ") + name_);
      if (got == tid_) {
        if (!WIFSTOPPED(status)) throw SystemError(ESRCH, std::string("the ") + name_ + " died");
        return status;
      }
      deadline_->WaitForChild();
    }
  }
  // Waits for a PTRACE_EVENT_STOP: the answer to PTRACE_INTERRUPT, and where a new thread begins. What comes before is let by.
  void WaitEventStop() {
    for (;;) {
      int status = WaitStop();
      if (status >> 16 == PTRACE_EVENT_STOP) return;
      int signal = status >> 16 == 0 ? WSTOPSIG(status) : 0;  // not yet ours to hold back
      Request(PTRACE_CONT, nullptr, reinterpret_cast<void *>(intptr_t(signal)), "PTRACE_CONT");
    }
  }

  // Makes a system call in the stopped thread, and leaves it stopped at the call's exit. Returns its result, or -errno.
  long Call(const user_regs_struct &base, long number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0, uint64_t d = 0) {
    user_regs_struct regs = base;
    regs.rax = (unsigned long long)(number);
    regs.orig_rax = ~0ull;
    regs.rdi = a;
    regs.rsi = b;
    regs.rdx = c;
    regs.r10 = d;
    regs.r8 = regs.r9 = 0;
    for (int i = 0; i < kRetriesMax; i++) {
      SetRegisters(regs);
      RunToSyscallStop();  // entry
      RunToSyscallStop();  // exit
      long result = long(Registers().rax);
      bool restart = result == -512 || result == -513 || result == -514 || result == -516;  // -ERESTART*
      if (!restart) return result;
    }
    throw SystemError(EAGAIN, "a system call was interrupted again and again");
  }
  long CheckedCall(const char *what, const user_regs_struct &base, long number, uint64_t a = 0, uint64_t b = 0, uint64_t c = 0,
                   uint64_t d = 0) {
    long result = Call(base, number, a, b, c, d);
    if (result < 0) throw SystemError(int(-result), std::string(what) + " in the " + name_);
    return result;
  }

 private:
  void RunToSyscallStop() {
    Request(PTRACE_SYSCALL, nullptr, nullptr, "PTRACE_SYSCALL");
    for (;;) {
      int status = WaitStop(), event = status >> 16, signal = WSTOPSIG(status);
      if (event == 0 && signal == (SIGTRAP | 0x80)) return;
      if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK) {
        unsigned long message = 0;
        Request(PTRACE_GETEVENTMSG, nullptr, &message, "PTRACE_GETEVENTMSG");
        cloned_ = pid_t(message);
      } else if (event == 0) {
        held_signals_.push_back(signal);  // only SIGSTOP cannot be blocked; it is sent again at the end
      }
      Request(PTRACE_SYSCALL, nullptr, nullptr, "PTRACE_SYSCALL");
    }
  }

  pid_t tid_;
  const char *name_;
  const Deadline *deadline_;
  pid_t cloned_ = 0;
  std::vector<int> held_signals_;
};

void KillAndReap(pid_t pid) {
  kill(pid, SIGKILL);
  int status;
  while (waitpid(pid, &status, __WALL) == pid || errno == EINTR) {
    if (WIFEXITED(status) || WIFSIGNALED(status)) return;
  }
}

void WriteMemory(int memory, uint64_t address, const std::vector<uint8_t> &bytes) {
  if (pwrite(memory, bytes.data(), bytes.size(), off_t(address)) != ssize_t(bytes.size()))
    throw SystemError(errno, "write to the main thread's stack");
}

class Fork {
 public:
  explicit Fork(ForkSession *session) : session_(session), main_(session->pid, "main thread", &deadline_) {}
  ~Fork() {
    if (memory_ >= 0) close(memory_);
  }

  void Prepare() {
    pid_t pid = session_->pid;
    ProcessStatus status = ReadStatus(pid);
    if (status.tracer != 0)
      throw SystemError(EBUSY, "the process is already traced, by process " + std::to_string(status.tracer));
    CheckRegions(pid, session_->regions);
    gadgets_ = FindGadgets(pid);
    memory_ = open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDWR | O_CLOEXEC);
    if (memory_ < 0) throw SystemError(errno, "open /proc/PID/mem");
    options_ = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK;
    if (status.seccomp != 0) options_ |= PTRACE_O_SUSPEND_SECCOMP;
  }

  // Leaves the main thread as it was, whether it succeeds or throws.
  void Run() {
    deadline_.Begin(session_->timeout_ns);
    int64_t begin_ns = MonotonicNs();
    Stop();
    try {
      Enter();
      ForkImage();
      LeaveRegions();
    } catch (...) {
      Abandon();
      throw;
    }
    Restore();
    session_->stopped_ns = MonotonicNs() - begin_ns;
    try {
      CloseDescriptors();
    } catch (...) {
      KillAndReap(session_->child);
      throw;
    }
  }

 private:
  // Until the first SetRegisters nothing is changed: if this throws, the tracer's end alone undoes it.
  void Stop() {
    main_.Request(PTRACE_SEIZE, nullptr, nullptr, "PTRACE_SEIZE");
    main_.Request(PTRACE_INTERRUPT, nullptr, nullptr, "PTRACE_INTERRUPT");
    main_.WaitEventStop();
    try {
      // Only now: a thread that QEMU itself makes before the stop is none of ours.
      main_.Request(PTRACE_SETOPTIONS, nullptr, reinterpret_cast<void *>(options_), "PTRACE_SETOPTIONS");
      state_.regs = main_.Registers();
      if (state_.regs.cs != kUserCs) throw SystemError(ENOTSUP, "the process is not a 64-bit one");
      main_.Request(PTRACE_GETSIGMASK, reinterpret_cast<void *>(sizeof state_.signal_mask), &state_.signal_mask,
                    "PTRACE_GETSIGMASK");
      state_.xstate.resize(kXstateMax);
      iovec vector = {state_.xstate.data(), state_.xstate.size()};
      main_.Request(PTRACE_GETREGSET, reinterpret_cast<void *>(NT_X86_XSTATE), &vector, "PTRACE_GETREGSET");
      state_.xstate.resize(vector.iov_len);
      way_ = BuildWayBack(state_, session_->regions, gadgets_);
      WriteMemory(memory_, way_.base, way_.bytes);
    } catch (...) {
      ptrace(PTRACE_DETACH, session_->pid, nullptr, nullptr);
      throw;
    }
  }

  // The registers come first and the mask second, and the other way round on leaving: whenever registers are not
  // the thread's own, the way back, which restores both, is under its stack pointer.
  void Enter() {
    base_ = state_.regs;
    base_.rip = gadgets_.syscall_ret;
    base_.rsp = way_.restore_stack;
    base_.rax = SYS_getpid;
    base_.orig_rax = ~0ull;
    main_.SetRegisters(base_);
    main_.SetSignalMask(~uint64_t(0));
    for (const Region &region : session_->regions)
      main_.CheckedCall("madvise(MADV_DOFORK)", base_, SYS_madvise, region.address, region.length, MADV_DOFORK);
    // Where this fails, more is copied than is needed.
    for (const Region &region : session_->left_out)
      main_.Call(base_, SYS_madvise, region.address, region.length, MADV_DONTFORK);
  }

  void ForkImage() {
    // Zombies of a tracer that died in the midst, if any. ECHILD: QEMU has, as is usual, no child of this kind.
    long reaped;
    while ((reaped = main_.Call(base_, SYS_wait4, uint64_t(-1), 0, __WCLONE | WNOHANG)) > 0) continue;
    if (reaped == -ECHILD) WriteMemory(memory_, way_.base, WaitingReapFrame(way_, gadgets_));
    long helper_of_qemu = main_.CheckedCall("clone", base_, SYS_clone, CLONE_VM | CLONE_FS | CLONE_FILES, way_.exit_stack);
    Tracee helper(main_.cloned(), "fork helper", &deadline_);
    try {
      helper.WaitEventStop();
      helper.Request(PTRACE_SETOPTIONS, nullptr, reinterpret_cast<void *>(options_ | PTRACE_O_EXITKILL), "PTRACE_SETOPTIONS");
      user_regs_struct regs = helper.Registers();
      regs.rip = gadgets_.syscall_ret;
      regs.rsp = way_.exit_stack;
      helper.CheckedCall("clone", regs, SYS_clone, 0, way_.exit_stack);
      session_->fork_ns = MonotonicNs();
      session_->child = helper.cloned();
    } catch (...) {
      if (helper.cloned() != 0) KillAndReap(helper.cloned());
      session_->child = 0;
      Reap(helper.tid(), helper_of_qemu);
      throw;
    }
    Reap(helper.tid(), helper_of_qemu);
  }

  // The tracer is told of a death first, then the parent.
  void Reap(pid_t helper, long helper_of_qemu) {
    KillAndReap(helper);
    main_.CheckedCall("wait4", base_, SYS_wait4, uint64_t(helper_of_qemu), 0, __WALL);
  }

  void LeaveRegions() {
    for (const Region &region : session_->regions)
      main_.CheckedCall("madvise(MADV_DONTFORK)", base_, SYS_madvise, region.address, region.length, MADV_DONTFORK);
  }

  void Restore() {
    main_.SetSignalMask(state_.signal_mask);
    main_.SetRegisters(ResumeRegisters(state_.regs));
    main_.Request(PTRACE_DETACH, nullptr, nullptr, "PTRACE_DETACH");
    for (int signal : main_.held_signals()) syscall(SYS_tgkill, session_->pid, session_->pid, signal);
  }

  // Undoes what can be undone from here. A main thread that does not stop any more is let go by the tracer's end, and
  // then takes its way back by itself.
  void Abandon() noexcept {
    if (session_->child != 0) KillAndReap(session_->child);
    session_->child = 0;
    try {
      for (const Region &region : session_->regions)
        main_.Call(base_, SYS_madvise, region.address, region.length, MADV_DONTFORK);
      Restore();
    } catch (const SystemError &) {
      return;
    }
  }

  void CloseDescriptors() {
    Tracee image(session_->child, "forked image", &deadline_);
    image.WaitEventStop();
    user_regs_struct regs = image.Registers();
    regs.rip = gadgets_.syscall_ret;
    regs.rsp = way_.exit_stack;
    image.CheckedCall("close_range", regs, SYS_close_range, 0, ~0u, 0);
  }

  ForkSession *session_;
  Deadline deadline_;
  Tracee main_;
  Gadgets gadgets_;
  uintptr_t options_ = 0;
  int memory_ = -1;
  ThreadState state_ = {};
  user_regs_struct base_ = {};
  WayBack way_ = {};
};

void Announce(ForkSession *session, int state) {
  session->state.store(state);
  uint64_t one = 1;
  if (write(session->announce_fd, &one, sizeof one) < 0) _exit(1);
}

}  // namespace

int TracerMain(void *data) {
  ForkSession *session = static_cast<ForkSession *>(data);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != session->keeper) _exit(1);
  signal(SIGCHLD, SIG_DFL);
  // QEMU stands still at every turn that this process waits for; refused, it is only slower.
  TryRealtime(1);
  try {
    Fork fork(session);
    fork.Prepare();
    Announce(session, ForkSession::kPrepared);
    pollfd orders[2] = {{session->go_fd, POLLIN, 0}, {session->release_fd, POLLIN, 0}};
    while (poll(orders, 2, -1) < 1) continue;
    if (orders[1].revents) _exit(0);
    fork.Run();
  } catch (const SystemError &error) {
    session->error = error.error;
    session->what = error.what();
    Announce(session, ForkSession::kFailed);
    _exit(1);
  }
  Announce(session, ForkSession::kForked);
  pollfd release = {session->release_fd, POLLIN, 0};
  while (poll(&release, 1, -1) != 1) continue;
  KillAndReap(session->child);
  _exit(0);
}

}  // namespace staghorn
