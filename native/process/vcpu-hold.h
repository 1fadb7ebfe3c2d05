// vCPUs that stand still while their VMs' main threads work: beside busy guests these wait for a processor.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "process/paused-threads.h"

namespace staghorn {

struct HeldVm {
  pid_t main;  // QEMU's main thread, which carries out `stop` and `cont`
  std::vector<pid_t> vcpus;
};

// Holds vCPU threads, and lets those of each VM go when its main thread has come so far.
class VcpuHold : private ThreadPauser {
 public:
  // Holds nothing yet.
  VcpuHold(std::vector<HeldVm> vms, int realtime_priority);
  ~VcpuHold() override { End(); }

  // Returns when all stand still, or after `bound_ns`. Once.
  void Hold(int64_t bound_ns);

  // The vCPUs of each VM go on once its main thread waits for them or for QEMU's big lock (a futex), in the midst of
  // `stop`: then nothing is left to do but that. All go on after `bound_ns`. Returns at once.
  void ReleaseWhenAwaited(int64_t bound_ns) { Order(When::Awaited, bound_ns); }

  // All go on once every main thread has run and waits for something else (ppoll), after `cont`. Those of a VM whose
  // main thread waits for them in the midst of it (KVM's clock is set by its vCPUs) go on at once.
  void ReleaseWhenServed(int64_t bound_ns) { Order(When::Served, bound_ns); }

 private:
  enum class When { Awaited, Served };
  enum class Main { Busy, Served, Awaits };

  void Order(When when, int64_t bound_ns);
  void BeforeTheyGo() override;
  Main StateOf(size_t vm) const;

  std::vector<HeldVm> vms_;
  std::vector<uint64_t> runs_;  // of each main thread before it was told anything
  When when_ = When::Awaited;
  int64_t bound_ns_ = 0;
};

}  // namespace staghorn
