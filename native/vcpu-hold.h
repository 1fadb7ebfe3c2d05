// vCPUs that stand still while their VMs' main threads work: beside busy guests these wait for a processor.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "descriptor.h"

namespace staghorn {

struct HeldVm {
  pid_t main;  // QEMU's main thread, which carries out `stop` and `cont`
  std::vector<pid_t> vcpus;
};

// Holds vCPU threads by ptrace, in a tracer process of its own as ThreadPauser does: it ends with this object, or with
// the thread that made it, also by a kill, and the kernel then lets them all go on.
class VcpuHold {
 public:
  // Starts the tracer, which holds nothing yet.
  VcpuHold(std::vector<HeldVm> vms, int realtime_priority);
  ~VcpuHold();
  VcpuHold(const VcpuHold &) = delete;
  VcpuHold &operator=(const VcpuHold &) = delete;

  // Returns when all stand still, or after `bound_ns`. Once.
  void Hold(int64_t bound_ns);

  // The vCPUs of each VM go on once its main thread waits for them or for QEMU's big lock (a futex), in the midst of
  // `stop`: then nothing is left to do but that. All go on after `bound_ns`. Returns at once.
  void ReleaseWhenAwaited(int64_t bound_ns) { Order(Release::Awaited, bound_ns); }

  // All go on once every main thread has run and waits for something else (ppoll), after `cont`. Those of a VM whose
  // main thread waits for them in the midst of it (KVM's clock is set by its vCPUs) go on at once.
  void ReleaseWhenServed(int64_t bound_ns) { Order(Release::Served, bound_ns); }

 private:
  enum class Release { Awaited, Served };

  static int TracerMain(void *self);
  void Keep();
  void HoldAll() const;
  void Order(Release when, int64_t bound_ns);
  void LetGo() const;
  enum class Main { Busy, Served, Awaits };
  Main StateOf(size_t vm) const;

  std::vector<HeldVm> vms_;
  std::vector<uint64_t> runs_;  // of each main thread before it was told anything
  pid_t process_;
  int realtime_priority_;
  Descriptor go_, done_, order_;
  Release when_ = Release::Awaited;
  int64_t bound_ns_ = 0;
  std::thread keeper_;
};

}  // namespace staghorn
