// The packet sockets of another process, and how much they may hold (packet(7), socket(7)).
#include <dirent.h>
#include <linux/if_packet.h>
#include <linux/sock_diag.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "addon.h"
#include "descriptor.h"

namespace staghorn {

namespace {

int IntOf(const Napi::Value &value) { return value.As<Napi::Number>().Int32Value(); }

// The inode of the socket that an entry of /proc/PID/fd stands for; 0 if it is none.
unsigned long SocketInode(int directory, const char *name) {
  char target[64] = {};
  unsigned long inode = 0;
  if (readlinkat(directory, name, target, sizeof target - 1) < 0) return 0;
  return sscanf(target, "socket:[%lu]", &inode) == 1 ? inode : 0;
}

// The device that a packet socket is bound to; 0 if it is bound to none, or is of another kind.
int PacketDevice(int fd) {
  int domain = 0;
  socklen_t length = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 || domain != AF_PACKET) return 0;
  sockaddr_ll place{};
  length = sizeof place;
  if (getsockname(fd, reinterpret_cast<sockaddr *>(&place), &length) < 0) return 0;
  return place.sll_ifindex;
}

struct Twin {
  Descriptor fd;
  unsigned long inode;
  int ifindex;
};

std::vector<Twin> TwinsOf(Napi::Env env, int pid) {
  Descriptor process(int(syscall(SYS_pidfd_open, pid, 0)));
  if (process.get() < 0) ThrowErrno(env, errno, "pidfd_open");
  std::string path = "/proc/" + std::to_string(pid) + "/fd";
  std::unique_ptr<DIR, int (*)(DIR *)> entries(opendir(path.c_str()), closedir);
  if (!entries) ThrowErrno(env, errno, "open " + path);
  std::vector<Twin> twins;
  while (dirent *entry = readdir(entries.get())) {
    unsigned long inode = SocketInode(dirfd(entries.get()), entry->d_name);
    if (inode == 0) continue;
    Descriptor fd(int(syscall(SYS_pidfd_getfd, process.get(), atoi(entry->d_name), 0)));
    if (fd.get() < 0 && errno == EBADF) continue;  // closed meanwhile
    if (fd.get() < 0) ThrowErrno(env, errno, "pidfd_getfd");
    int ifindex = PacketDevice(fd.get());
    if (ifindex != 0) twins.push_back({std::move(fd), inode, ifindex});
  }
  return twins;
}

// duplicatePacketSockets(pid): [{fd, inode, ifindex}], of those that are bound to a device. The caller closes them.
Napi::Value DuplicatePacketSockets(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  Napi::Array found = Napi::Array::New(env);
  for (Twin &twin : TwinsOf(env, IntOf(info[0]))) {
    Napi::Object socket = Napi::Object::New(env);
    socket.Set("inode", Napi::Number::New(env, double(twin.inode)));
    socket.Set("ifindex", Napi::Number::New(env, twin.ifindex));
    socket.Set("fd", Napi::Number::New(env, twin.fd.release()));
    found.Set(found.Length(), socket);
  }
  return found;
}

// readReceiveBuffer(fd): {bytes, filledBytes, dropped}; bytes as the kernel counts them: with what it keeps about each frame.
Napi::Value ReadReceiveBuffer(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t length = sizeof memory;
  if (getsockopt(IntOf(info[0]), SOL_SOCKET, SO_MEMINFO, memory, &length) < 0) ThrowErrno(env, errno, "getsockopt(SO_MEMINFO)");
  Napi::Object buffer = Napi::Object::New(env);
  buffer.Set("bytes", Napi::Number::New(env, memory[SK_MEMINFO_RCVBUF]));
  buffer.Set("filledBytes", Napi::Number::New(env, memory[SK_MEMINFO_RMEM_ALLOC]));
  buffer.Set("dropped", Napi::Number::New(env, memory[SK_MEMINFO_DROPS]));
  return buffer;
}

// setReceiveBuffer(fd, bytes): also above net.core.rmem_max, and also below what it is filled with.
Napi::Value SetReceiveBuffer(const Napi::CallbackInfo &info) {
  int half = IntOf(info[1]) / 2;  // the kernel doubles it (__sock_set_rcvbuf in net/core/sock.c)
  if (setsockopt(IntOf(info[0]), SOL_SOCKET, SO_RCVBUFFORCE, &half, sizeof half) < 0) {
    ThrowErrno(info.Env(), errno, "setsockopt(SO_RCVBUFFORCE)");
  }
  return info.Env().Undefined();
}

Facility facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("duplicatePacketSockets", Napi::Function::New<DuplicatePacketSockets>(env));
  exports.Set("readReceiveBuffer", Napi::Function::New<ReadReceiveBuffer>(env));
  exports.Set("setReceiveBuffer", Napi::Function::New<SetReceiveBuffer>(env));
});

}  // namespace

}  // namespace staghorn
