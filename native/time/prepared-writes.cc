#include "time/prepared-writes.h"

#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "addon.h"
#include "job.h"
#include "process/paused-threads-job.h"

namespace staghorn {

namespace {

constexpr int64_t kReadLookNs = 40000;
constexpr int64_t kAnswerLookNs = 250000;

void Sleep(int64_t ns) {
  timespec pause = {0, long(ns)};
  nanosleep(&pause, nullptr);
}

// What the peer of a unix socket has not read yet (unix_outq_len in the kernel's net/unix/af_unix.c).
bool IsRead(const PreparedWrite &write) {
  int unread = 0;
  return write.error != 0 || ioctl(write.fd, SIOCOUTQ, &unread) < 0 || unread == 0;
}

void WriteUpTo(PreparedWrite &write, size_t end) {
  while (write.error == 0 && write.done < end) {
    const uint8_t *rest = write.data + write.done;
    ssize_t sent = send(write.fd, rest, end - write.done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == ENOTSOCK) sent = ::write(write.fd, rest, end - write.done);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0)
      write.error = sent == 0 ? EPIPE : errno;
    else
      write.done += size_t(sent);
  }
}

template <typename Done>
void AwaitAll(const std::vector<PreparedWrite> &writes, int64_t bound_ns, int64_t look_ns, Done done) {
  size_t first = 0;
  for (int64_t end_ns = MonotonicNs() + bound_ns;;) {
    while (first < writes.size() && done(writes[first])) first++;
    if (first == writes.size() || MonotonicNs() >= end_ns) return;
    Sleep(look_ns);
  }
}

}  // namespace

bool IsAnswered(const PreparedWrite &write) {
  pollfd fd = {write.fd, POLLIN, 0};
  return write.error != 0 || poll(&fd, 1, 0) != 0;
}

void WriteOut(PreparedWrite &write) {
  WriteUpTo(write, write.length);
  write.written_ns = MonotonicNs();
}

void WriteHeads(std::vector<PreparedWrite> &writes) {
  for (PreparedWrite &write : writes) WriteUpTo(write, write.head_length);
}

void RecallHeads(std::vector<PreparedWrite> &writes) {
  // qmp_dispatch_check_obj in qapi/qmp-dispatch.c
  static constexpr char kUnknownMember[] = ",\"recalled\":true}";
  for (PreparedWrite &write : writes) {
    if (write.done == 0) continue;
    write.data = reinterpret_cast<const uint8_t *>(kUnknownMember);
    write.done = 0;
    WriteUpTo(write, sizeof kUnknownMember - 1);
  }
}

void AwaitRead(const std::vector<PreparedWrite> &writes, int64_t bound_ns) {
  AwaitAll(writes, bound_ns, kReadLookNs, IsRead);
  Sleep(kReadLookNs);  // what was read last is understood
}

void AwaitAnswers(const std::vector<PreparedWrite> &writes, int64_t bound_ns) {
  AwaitAll(writes, bound_ns, kAnswerLookNs, IsAnswered);
}

std::vector<PreparedWrite> PreparedWritesOf(Napi::Array array) {
  std::vector<PreparedWrite> writes(array.Length());
  for (uint32_t i = 0; i < writes.size(); i++) {
    Napi::Object write = array.Get(i).As<Napi::Object>();
    Napi::Uint8Array bytes = write.Get("bytes").As<Napi::Uint8Array>();
    writes[i].fd = write.Get("fd").As<Napi::Number>().Int32Value();
    writes[i].data = bytes.Data();
    writes[i].length = bytes.ByteLength();
    if (write.Has("headBytes")) writes[i].head_length = std::min(writes[i].length, size_t(write.Get("headBytes").As<Napi::Number>().Uint32Value()));
    if (write.Has("atNs")) writes[i].at_ns = Int64Of(write.Get("atNs"));
    if (write.Get("letsGo").IsExternal()) writes[i].lets_go = PauserOf(write.Get("letsGo"));
    if (!write.Get("held").IsObject()) continue;
    Napi::Object held = write.Get("held").As<Napi::Object>();
    writes[i].main_thread = held.Get("mainThread").As<Napi::Number>().Int32Value();
    Napi::Array vcpus = held.Get("vcpuThreads").As<Napi::Array>();
    for (uint32_t j = 0; j < vcpus.Length(); j++) writes[i].vcpus.push_back(vcpus.Get(j).As<Napi::Number>().Int32Value());
  }
  return writes;
}

Napi::Array WritesResult(Napi::Env env, const std::vector<PreparedWrite> &writes) {
  Napi::Array array = Napi::Array::New(env, writes.size());
  for (uint32_t i = 0; i < writes.size(); i++) {
    Napi::Object write = Napi::Object::New(env);
    write.Set("writtenNs", BigIntOf(env, writes[i].written_ns));
    write.Set("error", writes[i].error == 0 ? env.Null() : Napi::Value(ErrnoError(env, writes[i].error, "write").Value()));
    array.Set(i, write);
  }
  return array;
}

}  // namespace staghorn
