// Descriptors of other processes, passing descriptors, memfds, file locks, pidfds.
#include <poll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "addon.h"
#include "job.h"

namespace staghorn {

static int IntOf(const Napi::Value &value) { return value.As<Napi::Number>().Int32Value(); }

static Napi::Value OpenPidfd(const Napi::CallbackInfo &info) {
  int fd = int(syscall(SYS_pidfd_open, IntOf(info[0]), 0));
  if (fd < 0) ThrowErrno(info.Env(), errno, "pidfd_open");
  return Napi::Number::New(info.Env(), fd);
}

static Napi::Value DuplicateDescriptor(const Napi::CallbackInfo &info) {
  int pidfd = int(syscall(SYS_pidfd_open, IntOf(info[0]), 0));
  if (pidfd < 0) ThrowErrno(info.Env(), errno, "pidfd_open");
  int fd = int(syscall(SYS_pidfd_getfd, pidfd, IntOf(info[1]), 0));
  int error = errno;
  close(pidfd);
  if (fd < 0) ThrowErrno(info.Env(), error, "pidfd_getfd");
  return Napi::Number::New(info.Env(), fd);
}

// Sends what goes without blocking, the descriptor (if >= 0) with the first byte. Returns the bytes sent; 0 is "not now".
static Napi::Value SendSome(const Napi::CallbackInfo &info) {
  int socket_fd = IntOf(info[0]), fd = IntOf(info[1]);
  Napi::Uint8Array bytes = info[2].As<Napi::Uint8Array>();
  iovec vector = {bytes.Data(), bytes.ByteLength()};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  ssize_t sent;
  do sent = sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno != EAGAIN) ThrowErrno(info.Env(), errno, "sendmsg");
  return Napi::Number::New(info.Env(), sent < 0 ? 0 : double(sent));
}

static Napi::Value CreateMemfd(const Napi::CallbackInfo &info) {
  int fd = memfd_create(info[0].As<Napi::String>().Utf8Value().c_str(), MFD_CLOEXEC);
  if (fd < 0) ThrowErrno(info.Env(), errno, "memfd_create");
  return Napi::Number::New(info.Env(), fd);
}

static Napi::Value LockFile(const Napi::CallbackInfo &info) {
  int locked = flock(IntOf(info[0]), LOCK_EX | LOCK_NB);
  if (locked < 0 && errno != EWOULDBLOCK) ThrowErrno(info.Env(), errno, "flock");
  return Napi::Boolean::New(info.Env(), locked == 0);
}

static Napi::Value CloseDescriptor(const Napi::CallbackInfo &info) {
  if (close(IntOf(info[0])) < 0 && errno != EINTR) ThrowErrno(info.Env(), errno, "close");
  return info.Env().Undefined();
}

static Napi::Value PollReadable(const Napi::CallbackInfo &info) {
  Napi::Array fds = info[0].As<Napi::Array>();
  std::vector<pollfd> polled(fds.Length());
  for (uint32_t i = 0; i < polled.size(); i++) polled[i] = {IntOf(fds.Get(i)), POLLIN, 0};
  if (poll(polled.data(), polled.size(), 0) < 0 && errno != EINTR) ThrowErrno(info.Env(), errno, "poll");
  Napi::Array readable = Napi::Array::New(info.Env(), polled.size());
  for (uint32_t i = 0; i < polled.size(); i++) {
    if (polled[i].revents & POLLNVAL) ThrowErrno(info.Env(), EBADF, "poll");
    readable.Set(i, Napi::Boolean::New(info.Env(), polled[i].revents & POLLIN));
  }
  return readable;
}

class PidfdJob : public Job {
 public:
  explicit PidfdJob(int pidfd) : pidfd_(pidfd) {}

 protected:
  void Run() override {
    pollfd fds[2] = {{pidfd_, POLLIN, 0}, {control()->cancel_fd, POLLIN, 0}};
    while (poll(fds, 2, -1) < 0) {
      if (errno != EINTR) throw SystemError(errno, "poll");
    }
    if (fds[0].revents & POLLNVAL) throw SystemError(EBADF, "poll");
    if (!fds[0].revents) ThrowIfCancelled();
  }
  Napi::Value Result(Napi::Env env) override { return env.Undefined(); }

 private:
  int pidfd_;
};

static Napi::Value StartWaitPidfd(const Napi::CallbackInfo &info) {
  return Job::Start(info.Env(), std::make_unique<PidfdJob>(IntOf(info[0])));
}

static Facility descriptors_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("openPidfd", Napi::Function::New<OpenPidfd>(env));
  exports.Set("duplicateDescriptor", Napi::Function::New<DuplicateDescriptor>(env));
  exports.Set("sendSome", Napi::Function::New<SendSome>(env));
  exports.Set("createMemfd", Napi::Function::New<CreateMemfd>(env));
  exports.Set("lockFile", Napi::Function::New<LockFile>(env));
  exports.Set("closeDescriptor", Napi::Function::New<CloseDescriptor>(env));
  exports.Set("pollReadable", Napi::Function::New<PollReadable>(env));
  exports.Set("startWaitPidfd", Napi::Function::New<StartWaitPidfd>(env));
});

}  // namespace staghorn
