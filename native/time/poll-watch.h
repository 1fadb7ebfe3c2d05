// What another process's main thread waits for in poll(2) or ppoll(2).
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <vector>

#include "descriptor.h"

namespace staghorn {

// QEMU waits for a tap as long as it could deliver a frame. Once it has read one that the guest has no buffer for, it
// leaves the tap out until that one is delivered (tap_send in its net/tap.c), and drops it if it stops before
// (net_vm_change_state_handler in its net/net.c).
class PollWatch {
 public:
  explicit PollWatch(pid_t process);
  // Looks once; false if the thread does something else now, or nobody may know.
  bool Look();
  // Of the last look.
  bool WaitsToRead(int fd) const;
  pid_t process() const { return process_; }

 private:
  pid_t process_;
  Descriptor syscall_;
  std::vector<pollfd> fds_;
};

}  // namespace staghorn
