#include "time/held-vcpus.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "addon.h"

namespace staghorn {

static constexpr long kLookNs = 50000;

HeldVcpus::HeldVcpus(const std::vector<PreparedWrite> &writes) {
  for (const PreparedWrite &write : writes) {
    if (write.vcpus.empty()) continue;
    std::string thread = std::to_string(write.main_thread);
    vms_.push_back({&write, Descriptor(open(("/proc/" + thread + "/task/" + thread + "/syscall").c_str(), O_RDONLY | O_CLOEXEC))});
  }
}

bool HeldVcpus::MayGo(const Vm &vm, bool answered) const {
  if (vm.write->error != 0 || (answered && IsAnswered(*vm.write))) return true;
  // The number of the system call that it sleeps in; "running" while it does not (proc(5)).
  char text[64];
  ssize_t length = pread(vm.syscall.get(), text, sizeof text - 1, 0);
  if (length <= 0) return true;
  text[length] = 0;
  return text[0] >= '0' && text[0] <= '9' && strtol(text, nullptr, 10) == SYS_futex;
}

void HeldVcpus::LetGo(ThreadPauser &pauser, bool answered, int64_t bound_ns) {
  for (int64_t end_ns = MonotonicNs() + bound_ns; !vms_.empty() && MonotonicNs() < end_ns;) {
    for (size_t i = 0; i < vms_.size();) {
      if (!MayGo(vms_[i], answered)) {
        i++;
        continue;
      }
      for (pid_t vcpu : vms_[i].write->vcpus) pauser.LetGo(vcpu);
      std::swap(vms_[i], vms_.back());
      vms_.pop_back();
    }
    timespec pause = {0, kLookNs};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace staghorn
