#include "process/fork-frame.h"

#include <cpuid.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <fstream>
#include <sstream>

#include "job.h"

namespace staghorn {

namespace {

// Kernel: arch/x86/include/uapi/asm/{ucontext,sigcontext}.h
struct SignalContext {
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, ip, flags;
  uint16_t cs, gs, fs, ss;
  uint64_t err, trapno, oldmask, cr2, fpstate, reserved[8];
};

struct SignalFrame {
  uint64_t restorer;
  uint64_t uc_flags, uc_link;
  uint64_t stack_pointer;
  uint32_t stack_flags, pad;
  uint64_t stack_size;
  SignalContext context;
  uint64_t signal_mask;
};
static_assert(sizeof(SignalFrame) == 312 && offsetof(SignalFrame, context) == 48);

constexpr uint64_t kUcFpXstate = 1, kUcSigcontextSs = 2, kUcStrictRestoreSs = 4;
constexpr uint32_t kNoSuchStackMode = 0x7f;  // sigreturn ignores an invalid alternate stack, and so keeps the thread's own
constexpr uint16_t kUserCs = 0x33, kUserSs = 0x2b;
constexpr size_t kRedZone = 128;
// Kernel: struct _fpx_sw_bytes in the FXSAVE area's last 48 bytes
constexpr size_t kSoftwareBytes = 464;
constexpr uint32_t kMagic1 = 0x46505853, kMagic2 = 0x46505845;
constexpr size_t kXsaveMin = 512 + 64;

struct Mapping {
  uint64_t start, end;
  std::string permissions, path;
};

std::vector<Mapping> ReadMaps(pid_t pid) {
  std::ifstream maps("/proc/" + std::to_string(pid) + "/maps");
  std::vector<Mapping> mappings;
  std::string line;
  while (std::getline(maps, line)) {
    Mapping mapping;
    char dash;
    std::string offset, device, inode;
    std::istringstream fields(line);
    fields >> std::hex >> mapping.start >> dash >> mapping.end >> mapping.permissions >> offset >> device >> inode >> mapping.path;
    mappings.push_back(mapping);
  }
  if (mappings.empty()) throw SystemError(ESRCH, "process " + std::to_string(pid) + " has no memory map");
  return mappings;
}

SignalFrame EmptyFrame(const Gadgets &gadgets) {
  SignalFrame frame = {};
  frame.restorer = gadgets.sigreturn;
  frame.uc_flags = kUcSigcontextSs | kUcStrictRestoreSs;
  frame.stack_flags = kNoSuchStackMode;
  frame.context.cs = kUserCs;
  frame.context.ss = kUserSs;
  frame.context.flags = 0x202;
  frame.signal_mask = ~uint64_t(0);  // nothing may run on this stack before the last frame is through
  return frame;
}

// A frame that makes one system call and then goes on to the frame after it.
SignalFrame CallFrame(const Gadgets &gadgets, uint64_t next_stack, uint64_t number, uint64_t a, uint64_t b, uint64_t c) {
  SignalFrame frame = EmptyFrame(gadgets);
  frame.context.ip = gadgets.syscall_ret;
  frame.context.sp = next_stack;
  frame.context.ax = number;
  frame.context.di = a;
  frame.context.si = b;
  frame.context.dx = c;
  return frame;
}

SignalFrame RestoreFrame(const Gadgets &gadgets, const ThreadState &state, uint64_t fpstate) {
  user_regs_struct regs = ResumeRegisters(state.regs);
  SignalFrame frame = EmptyFrame(gadgets);
  frame.uc_flags |= kUcFpXstate;
  frame.context = {regs.r8,  regs.r9,  regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15, regs.rdi,
                   regs.rsi, regs.rbp, regs.rbx, regs.rdx, regs.rax, regs.rcx, regs.rsp, regs.rip, regs.eflags};
  frame.context.cs = uint16_t(regs.cs);
  frame.context.ss = uint16_t(regs.ss);
  frame.context.fpstate = fpstate;
  frame.signal_mask = state.signal_mask;
  return frame;
}

size_t XstateBytes(uint64_t features) {
  size_t bytes = kXsaveMin;
  for (unsigned i = 2; i < 63; i++) {
    if (!(features >> i & 1)) continue;
    unsigned size = 0, offset = 0, c = 0, d = 0;
    __cpuid_count(0xd, i, size, offset, c, d);
    if (offset + size > bytes) bytes = offset + size;
  }
  return bytes;
}

// ptrace leaves the enabled features where a signal frame has its magic numbers (Kernel: arch/x86/kernel/fpu/signal.c).
std::vector<uint8_t> SignalXstate(const std::vector<uint8_t> &xstate) {
  if (xstate.size() < kXsaveMin) throw SystemError(ENOTSUP, "no XSAVE state");
  uint64_t features;
  memcpy(&features, &xstate[kSoftwareBytes], 8);
  size_t bytes = XstateBytes(features);
  if (bytes > xstate.size()) throw SystemError(ENOTSUP, "XSAVE state is shorter than its features need");
  std::vector<uint8_t> result(xstate.begin(), xstate.begin() + ptrdiff_t(bytes));
  struct {
    uint32_t magic1, extended_size;
    uint64_t features;
    uint32_t xstate_size, padding[7];
  } software = {kMagic1, uint32_t(bytes + 4), features, uint32_t(bytes), {}};
  static_assert(sizeof software == 48);
  memcpy(&result[kSoftwareBytes], &software, sizeof software);
  const uint8_t *magic2 = reinterpret_cast<const uint8_t *>(&kMagic2);
  result.insert(result.end(), magic2, magic2 + 4);
  return result;
}

}  // namespace

void CheckRegions(pid_t pid, const std::vector<Region> &regions) {
  std::vector<Mapping> mappings = ReadMaps(pid);
  for (const Region &region : regions) {
    uint64_t covered = region.address;
    for (const Mapping &mapping : mappings) {
      if (mapping.start > covered || mapping.end <= covered) continue;
      if (mapping.permissions.size() < 4 || mapping.permissions[3] != 'p')
        throw SystemError(EINVAL, "a memory region is a shared mapping, which a fork does not copy");
      covered = mapping.end;
      if (covered >= region.address + region.length) break;
    }
    if (covered < region.address + region.length) throw SystemError(EINVAL, "a memory region is not mapped");
  }
}

Gadgets FindGadgets(pid_t pid) {
  static const std::string kSyscallRet("\x0f\x05\xc3", 3), kSigreturn("\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", 9);
  int memory = open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDONLY | O_CLOEXEC);
  if (memory < 0) throw SystemError(errno, "open /proc/PID/mem");
  Gadgets gadgets;
  std::vector<Mapping> mappings = ReadMaps(pid);
  for (bool libc_only : {true, false}) {
    for (const Mapping &mapping : mappings) {
      if (mapping.permissions.compare(0, 4, "r-xp") != 0 || mapping.path.empty() || mapping.path == "[vsyscall]") continue;
      if (libc_only != (mapping.path.find("libc") != std::string::npos)) continue;
      if (gadgets.syscall_ret && gadgets.sigreturn) break;
      std::string text(mapping.end - mapping.start, '\0');
      ssize_t got = pread(memory, text.data(), text.size(), off_t(mapping.start));
      text.resize(got < 0 ? 0 : size_t(got));
      size_t call = text.find(kSyscallRet), restorer = text.find(kSigreturn);
      if (!gadgets.syscall_ret && call != std::string::npos) gadgets.syscall_ret = mapping.start + call;
      if (!gadgets.sigreturn && restorer != std::string::npos) gadgets.sigreturn = mapping.start + restorer;
    }
  }
  close(memory);
  if (!gadgets.syscall_ret || !gadgets.sigreturn)
    throw SystemError(ENOTSUP, "the process has no system call instruction or signal restorer in its text");
  return gadgets;
}

// Kernel: arch_do_signal_or_restart(). After an injected call the kernel no longer does this itself, since the
// thread then leaves the kernel by another system call's exit.
user_regs_struct ResumeRegisters(const user_regs_struct &stopped) {
  constexpr long long kRestartSys = -512, kRestartNoIntr = -513, kRestartNoHand = -514, kRestartBlock = -516;
  user_regs_struct regs = stopped;
  long long result = (long long)(regs.rax);
  bool in_syscall = (long long)(regs.orig_rax) >= 0;
  if (in_syscall && (result == kRestartSys || result == kRestartNoIntr || result == kRestartNoHand)) {
    regs.rax = regs.orig_rax;
    regs.rip -= 2;
  } else if (in_syscall && result == kRestartBlock) {
    regs.rax = SYS_restart_syscall;
    regs.rip -= 2;
  }
  regs.orig_rax = ~0ull;
  return regs;
}

WayBack BuildWayBack(const ThreadState &state, const std::vector<Region> &regions, const Gadgets &gadgets) {
  std::vector<uint8_t> xstate = SignalXstate(state.xstate);
  size_t frames = regions.size() + 3;  // wait4, madvise per region, restore; and the other chain's exit
  size_t xstate_offset = (frames * sizeof(SignalFrame) + 63) & ~size_t(63);
  size_t total = (xstate_offset + xstate.size() + 63) & ~size_t(63);

  WayBack way;
  way.base = (state.regs.rsp - kRedZone - total) & ~uint64_t(63);
  auto address = [&](size_t index) { return way.base + index * sizeof(SignalFrame); };
  std::vector<SignalFrame> chain;
  chain.push_back(CallFrame(gadgets, address(1), SYS_wait4, uint64_t(-1), 0, __WCLONE | WNOHANG));
  for (const Region &region : regions)
    chain.push_back(CallFrame(gadgets, address(chain.size() + 1), SYS_madvise, region.address, region.length, MADV_DONTFORK));
  chain.push_back(RestoreFrame(gadgets, state, way.base + xstate_offset));
  chain.push_back(CallFrame(gadgets, 0, SYS_exit_group, 0, 0, 0));

  way.bytes.resize(total);
  memcpy(way.bytes.data(), chain.data(), chain.size() * sizeof(SignalFrame));
  memcpy(way.bytes.data() + xstate_offset, xstate.data(), xstate.size());
  way.restore_stack = address(0);
  way.exit_stack = address(frames - 1);
  return way;
}

std::vector<uint8_t> WaitingReapFrame(const WayBack &way, const Gadgets &gadgets) {
  SignalFrame frame = CallFrame(gadgets, way.base + sizeof(SignalFrame), SYS_wait4, uint64_t(-1), 0, __WCLONE);
  const uint8_t *bytes = reinterpret_cast<const uint8_t *>(&frame);
  return std::vector<uint8_t>(bytes, bytes + sizeof frame);
}

}  // namespace staghorn
