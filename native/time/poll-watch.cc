#include "time/poll-watch.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <cstdio>
#include <string>

#include "addon.h"

namespace staghorn {

static constexpr size_t kFdsMax = 4096;

static int OpenSyscall(pid_t process) {
  std::string path = "/proc/" + std::to_string(process) + "/task/" + std::to_string(process) + "/syscall";
  return open(path.c_str(), O_RDONLY | O_CLOEXEC);
}

PollWatch::PollWatch(pid_t process) : process_(process), syscall_(OpenSyscall(process)) { fds_.reserve(kFdsMax); }

bool PollWatch::Look() {
  fds_.clear();
  char text[256];
  ssize_t length = syscall_.get() < 0 ? -1 : pread(syscall_.get(), text, sizeof text - 1, 0);
  if (length <= 0) return false;
  text[length] = 0;
  // "running", or the number of the system call and its arguments (proc(5))
  long number;
  unsigned long address, count;
  if (sscanf(text, "%ld %lx %lx", &number, &address, &count) != 3) return false;
  bool polls = number == SYS_ppoll;
#ifdef SYS_poll
  polls = polls || number == SYS_poll;
#endif
  if (!polls || count == 0 || count > kFdsMax) return false;
  fds_.resize(count);
  iovec local = {fds_.data(), count * sizeof(pollfd)}, remote = {reinterpret_cast<void *>(address), local.iov_len};
  if (process_vm_readv(process_, &local, 1, &remote, 1, 0) == ssize_t(local.iov_len)) return true;
  fds_.clear();
  return false;
}

bool PollWatch::WaitsToRead(int fd) const {
  for (const pollfd &polled : fds_) {
    if (polled.fd == fd && (polled.events & POLLIN)) return true;
  }
  return false;
}

// waitsToRead(process, fds): for each descriptor; null if the thread does something else now.
static Napi::Value WaitsToRead(const Napi::CallbackInfo &info) {
  PollWatch watch(info[0].As<Napi::Number>().Int32Value());
  if (!watch.Look()) return info.Env().Null();
  Napi::Array fds = info[1].As<Napi::Array>();
  Napi::Array waits = Napi::Array::New(info.Env(), fds.Length());
  for (uint32_t i = 0; i < fds.Length(); i++) {
    waits.Set(i, Napi::Boolean::New(info.Env(), watch.WaitsToRead(fds.Get(i).As<Napi::Number>().Int32Value())));
  }
  return waits;
}

static Facility poll_watch_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("waitsToRead", Napi::Function::New(env, WaitsToRead));
});

}  // namespace staghorn
