// Commands that a barrier writes to many QEMUs, and the QEMUs that stand ready for them.
#pragma once

#include <napi.h>
#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "process/paused-threads.h"

namespace staghorn {

struct PreparedWrite {
  int fd;
  const uint8_t *data;
  size_t length;
  int64_t at_ns;
  // So much of it may be written ahead: QEMU's monitor reads one byte at a time, each by a system call and a turn of its
  // loop (monitor_can_read in monitor/monitor.c), and does nothing before the last. 0: nothing.
  size_t head_length;
  size_t done;
  // QEMU's main thread stands still when the command comes: its monitor's own thread reads it (monitor_iothread_init in
  // monitor/monitor.c), and it is carried out once the main thread goes on. 0: it is not held.
  pid_t main_thread;
  std::vector<pid_t> vcpus;  // held with it
  std::shared_ptr<ThreadPauser> lets_go;  // right after the write
  int64_t written_ns;  // or let go
  int error;
};

// QMP sockets do not block, and a line is far below a socket's buffer: what does not go in one attempt is an error.
void WriteOut(PreparedWrite &write);

// As much as may be written ahead; the rest is WriteOut's.
void WriteHeads(std::vector<PreparedWrite> &writes);
// Makes of what was written ahead commands that QEMU refuses.
void RecallHeads(std::vector<PreparedWrite> &writes);

// Whether QEMU has said something; true also if it was told nothing.
bool IsAnswered(const PreparedWrite &write);

// Until every QEMU has read its command, at most for `bound_ns`.
void AwaitRead(const std::vector<PreparedWrite> &writes, int64_t bound_ns);

// Until every QEMU has said something, at most for `bound_ns`. Nobody else reads meanwhile.
void AwaitAnswers(const std::vector<PreparedWrite> &writes, int64_t bound_ns);

// [{fd, bytes, headBytes?, atNs?, held?: {mainThread, vcpuThreads}, letsGo?}]
std::vector<PreparedWrite> PreparedWritesOf(Napi::Array array);
Napi::Array WritesResult(Napi::Env env, const std::vector<PreparedWrite> &writes);

}  // namespace staghorn
