// vCPUs that stand still while the main threads of their VMs carry out `stop` or `cont`: beside busy guests these would
// wait for a processor.
#pragma once

#include <cstdint>
#include <vector>

#include "descriptor.h"
#include "time/prepared-writes.h"

namespace staghorn {

class HeldVcpus {
 public:
  explicit HeldVcpus(const std::vector<PreparedWrite> &writes);

  // In the tracer, once the main threads have gone on: lets the vCPUs of each VM go when its main thread sleeps in
  // futex(2), waiting for them or for QEMU's big lock, or, if `answered` will do, when QEMU has said something. Returns
  // when all have gone, or after `bound_ns`.
  void LetGo(ThreadPauser &pauser, bool answered, int64_t bound_ns);

 private:
  struct Vm {
    const PreparedWrite *write;
    Descriptor syscall;  // of its main thread
  };
  bool MayGo(const Vm &vm, bool answered) const;

  std::vector<Vm> vms_;
};

}  // namespace staghorn
