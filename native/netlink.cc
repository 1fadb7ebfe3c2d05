// rtnetlink(7), as bytes: TypeScript makes the messages and reads the answers.
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "addon.h"
#include "gate/bpf.h"

namespace staghorn {

namespace {

constexpr size_t kReceiveBytes = 1 << 17;

size_t CountMessages(const uint8_t *bytes, size_t length) {
  size_t count = 0;
  for (size_t at = 0; at + sizeof(nlmsghdr) <= length; count++) {
    nlmsghdr header;
    memcpy(&header, bytes + at, sizeof header);
    if (header.nlmsg_len < sizeof header) break;
    at += NLMSG_ALIGN(header.nlmsg_len);
  }
  return count;
}

// Of the messages in a datagram, how many end an answer (an acknowledgement, an error, the end of a dump).
size_t CountEndings(const uint8_t *bytes, size_t length) {
  size_t count = 0;
  for (size_t at = 0; at + sizeof(nlmsghdr) <= length;) {
    nlmsghdr header;
    memcpy(&header, bytes + at, sizeof header);
    if (header.nlmsg_len < sizeof header) break;
    if (header.nlmsg_type == NLMSG_DONE || header.nlmsg_type == NLMSG_ERROR) count++;
    at += NLMSG_ALIGN(header.nlmsg_len);
  }
  return count;
}

// netlinkExchange(protocol, requests): sends one or more messages, each asking for an acknowledgement or a
// dump, and returns everything that came back, once every one of them was answered to its end.
Napi::Value Exchange(const Napi::CallbackInfo &info) {
  Napi::Env env = info.Env();
  int protocol = info[0].As<Napi::Number>().Int32Value();
  auto request = info[1].As<Napi::Buffer<uint8_t>>();
  Descriptor socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (socket.get() < 0) ThrowErrno(env, errno, "socket(AF_NETLINK)");
  int on = 1;
  setsockopt(socket.get(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(socket.get(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  timeval limit{5, 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (sendto(socket.get(), request.Data(), request.Length(), 0, reinterpret_cast<sockaddr *>(&kernel), sizeof kernel) < 0) {
    ThrowErrno(env, errno, "sendto(AF_NETLINK)");
  }
  size_t unanswered = CountMessages(request.Data(), request.Length());
  std::vector<uint8_t> answer;
  std::vector<uint8_t> datagram(kReceiveBytes);
  while (unanswered > 0) {
    ssize_t length = recv(socket.get(), datagram.data(), datagram.size(), 0);
    if (length < 0 && errno == EINTR) continue;
    if (length < 0) ThrowErrno(env, errno, "recv(AF_NETLINK)");
    unanswered -= std::min(unanswered, CountEndings(datagram.data(), size_t(length)));
    answer.insert(answer.end(), datagram.data(), datagram.data() + length);
    answer.resize(NLMSG_ALIGN(answer.size()));
  }
  return Napi::Buffer<uint8_t>::Copy(env, answer.data(), answer.size());
}

// enterNetworkNamespace(path): moves the calling thread, and so all threads that it starts from then on.
Napi::Value EnterNetworkNamespace(const Napi::CallbackInfo &info) {
  std::string path = info[0].As<Napi::String>();
  Descriptor netns(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (netns.get() < 0) ThrowErrno(info.Env(), errno, "open " + path);
  if (setns(netns.get(), CLONE_NEWNET) < 0) ThrowErrno(info.Env(), errno, "setns");
  return info.Env().Undefined();
}

Facility facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("enterNetworkNamespace", Napi::Function::New(env, EnterNetworkNamespace));
  exports.Set("netlinkExchange", Napi::Function::New(env, Exchange));
});

}  // namespace

}  // namespace staghorn
