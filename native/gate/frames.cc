#include "gate/frames.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "addon.h"

namespace staghorn {

namespace {

constexpr uint32_t kMacsBytes = 12;
constexpr int kEthernetHeaderBytes = 14;
constexpr uint32_t kTagBytes = 4;
constexpr uint16_t kTpidC = 0x8100;
constexpr uint16_t kTpidS = 0x88a8;
constexpr uint8_t kTcp = 6;
constexpr uint8_t kUdp = 17;
// VIRTIO_NET_HDR_*
constexpr uint8_t kNeedsChecksum = 1, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoUdpL4 = 5, kGsoEcn = 0x80;
constexpr uint8_t kTcpCwr = 0x80;

uint16_t Read16(const uint8_t *at) { return uint16_t(at[0] << 8 | at[1]); }

uint32_t Sum16(const uint8_t *at, uint32_t length) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i + 1 < length; i += 2) sum += Read16(at + i);
  return sum;
}

uint16_t Fold(uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return uint16_t(sum);
}

struct Transport {
  uint32_t offset;  // in the bytes, without a tag that stands apart
  uint8_t protocol;
  bool ipv6;
  uint32_t pseudo_sum;
};

// Where TCP or UDP begins, if the frame is an unfragmented IP packet that carries one of them.
std::optional<Transport> FindTransport(const FrameView &frame) {
  uint32_t at = kMacsBytes;
  while (at + 2 <= frame.length && (Read16(frame.bytes + at) == kTpidC || Read16(frame.bytes + at) == kTpidS)) at += kTagBytes;
  if (at + 2 > frame.length) return std::nullopt;
  uint16_t type = Read16(frame.bytes + at);
  at += 2;
  const uint8_t *ip = frame.bytes + at;
  uint32_t left = frame.length - at;
  if (type == ETH_P_IP && left >= 20) {
    uint32_t header = (ip[0] & 0xfu) * 4;
    bool fragment = (Read16(ip + 6) & 0x3fff) != 0;
    uint32_t total = Read16(ip + 2);
    if (header < 20 || header > left || fragment) return std::nullopt;
    uint32_t length = total > header ? total - header : 0;
    return Transport{at + header, ip[9], false, Sum16(ip + 12, 8) + ip[9] + length};
  }
  if (type == ETH_P_IPV6 && left >= 40) {
    return Transport{at + 40, ip[6], true, Sum16(ip + 8, 32) + ip[6] + Read16(ip + 4)};
  }
  return std::nullopt;
}

uint8_t GsoType(const Transport &transport, const uint8_t *segment) {
  if (transport.protocol == kUdp) return kGsoUdpL4;
  // Only the first of its segments keeps CWR (tcp_ecn_send in net/ipv4/tcp_output.c marks such a frame).
  uint8_t ecn = segment[13] & kTcpCwr ? kGsoEcn : 0;
  return uint8_t(ecn | (transport.ipv6 ? kGsoTcp6 : kGsoTcp4));
}

int Send(int socket, const msghdr &message) {
  for (;;) {
    if (sendmsg(socket, &message, MSG_DONTWAIT) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

// A packet socket takes a frame of the MTU and one 802.1Q tag (packet_snd in net/packet/af_packet.c). Bridges forward
// more: a tag that the kernel keeps apart does not count there (is_skb_forwardable in net/core/dev.c), so that a
// full frame with two tags arrives. The device gets a larger MTU for the moment in which such a frame is sent.
int SendOversized(int socket, const msghdr &message, int ifindex, uint32_t length) {
  ifreq device{};
  device.ifr_ifindex = ifindex;
  if (ioctl(socket, SIOCGIFNAME, &device) < 0 || ioctl(socket, SIOCGIFMTU, &device) < 0) return errno;
  int mtu = device.ifr_mtu;
  device.ifr_mtu = int(length) - kEthernetHeaderBytes;
  if (device.ifr_mtu <= mtu || ioctl(socket, SIOCSIFMTU, &device) < 0) return EMSGSIZE;
  int error = Send(socket, message);
  device.ifr_mtu = mtu;
  ioctl(socket, SIOCSIFMTU, &device);
  return error;
}

}  // namespace

FrameView ViewOf(const RecordHeader &header, const uint8_t *bytes) {
  FrameView view{bytes, header.length, header.gso_size, header.vlan_present != 0 && header.length >= kMacsBytes, {}};
  uint16_t proto = uint16_t(header.vlan_proto);
  uint16_t tci = htons(uint16_t(header.vlan_tci));
  memcpy(view.tag, &proto, 2);
  memcpy(view.tag + 2, &tci, 2);
  return view;
}

std::vector<uint8_t> Flatten(const FrameView &frame) {
  std::vector<uint8_t> whole(frame.bytes, frame.bytes + frame.length);
  if (frame.tagged) whole.insert(whole.begin() + kMacsBytes, frame.tag, frame.tag + kTagBytes);
  return whole;
}

OffloadHeader OffloadOf(const FrameView &frame) {
  OffloadHeader offload{};
  std::optional<Transport> transport = FindTransport(frame);
  if (!transport || (transport->protocol != kTcp && transport->protocol != kUdp)) return offload;
  uint32_t checksum_offset = transport->protocol == kTcp ? 16 : 6;
  uint32_t header_bytes = transport->protocol == kTcp ? 20 : 8;
  if (transport->offset + header_bytes > frame.length) return offload;
  const uint8_t *segment = frame.bytes + transport->offset;
  // An unfinished checksum holds the sum of the pseudo header. A finished one that happens to be equal to it
  // comes out the same when it is computed again.
  bool partial = Read16(segment + checksum_offset) == Fold(transport->pseudo_sum);
  if (!partial && frame.gso_size == 0) return offload;
  uint32_t shift = frame.tagged ? kTagBytes : 0;
  offload.flags = kNeedsChecksum;
  offload.csum_start = uint16_t(transport->offset + shift);
  offload.csum_offset = uint16_t(checksum_offset);
  if (frame.gso_size == 0) return offload;
  if (transport->protocol == kTcp) header_bytes = (segment[12] >> 4) * 4u;
  offload.gso_type = GsoType(*transport, segment);
  offload.gso_size = uint16_t(frame.gso_size);
  offload.hdr_len = uint16_t(transport->offset + shift + header_bytes);
  return offload;
}

Descriptor OpenSender(uint32_t mark, bool bypass_qdisc) {
  Descriptor socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.get() < 0) throw SyscallError{errno, "socket(AF_PACKET)"};
  int bypass = bypass_qdisc, on = 1, buffer = 64 << 20;
  if (setsockopt(socket.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0) throw SyscallError{errno, "setsockopt(SO_MARK)"};
  if (setsockopt(socket.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &bypass, sizeof bypass) < 0) {
    throw SyscallError{errno, "setsockopt(PACKET_QDISC_BYPASS)"};
  }
  if (setsockopt(socket.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0) {
    throw SyscallError{errno, "setsockopt(PACKET_VNET_HDR)"};
  }
  // Frames that wait in a queueing discipline count against the sender's buffer.
  if (setsockopt(socket.get(), SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer) < 0) {
    throw SyscallError{errno, "setsockopt(SO_SNDBUFFORCE)"};
  }
  return socket;
}

int SendFrame(int socket, int ifindex, const FrameView &frame) {
  OffloadHeader offload = OffloadOf(frame);
  iovec parts[4];
  size_t count = 0;
  auto add = [&](const void *base, size_t length) { parts[count++] = {const_cast<void *>(base), length}; };
  add(&offload, sizeof offload);
  if (frame.tagged) {
    add(frame.bytes, kMacsBytes);
    add(frame.tag, kTagBytes);
    add(frame.bytes + kMacsBytes, frame.length - kMacsBytes);
  } else {
    add(frame.bytes, frame.length);
  }
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = ifindex;
  to.sll_halen = ETH_ALEN;
  memcpy(to.sll_addr, frame.bytes, std::min<uint32_t>(frame.length, ETH_ALEN));
  msghdr message{};
  message.msg_name = &to;
  message.msg_namelen = sizeof to;
  message.msg_iov = parts;
  message.msg_iovlen = count;
  int error = Send(socket, message);
  if (error != EMSGSIZE) return error;
  return SendOversized(socket, message, ifindex, frame.length + (frame.tagged ? kTagBytes : 0));
}

Ring::Ring(int map, uint32_t size_bytes) : size_(size_bytes) {
  size_t page = size_t(sysconf(_SC_PAGESIZE));
  consumer_ = static_cast<uint8_t *>(MapMemoryOf(map, page, PROT_READ | PROT_WRITE, 0));
  try {
    producer_ = static_cast<uint8_t *>(MapMemoryOf(map, page + 2 * size_t(size_), PROT_READ, off_t(page)));
  } catch (const SyscallError &) {
    munmap(consumer_, page);
    throw;
  }
}

Ring::~Ring() {
  size_t page = size_t(sysconf(_SC_PAGESIZE));
  munmap(consumer_, page);
  munmap(producer_, page + 2 * size_t(size_));
}

uint64_t Ring::ConsumerPosition() const { return __atomic_load_n(reinterpret_cast<uint64_t *>(consumer_), __ATOMIC_ACQUIRE); }

uint64_t Ring::ProducerPosition() const { return __atomic_load_n(reinterpret_cast<uint64_t *>(producer_), __ATOMIC_ACQUIRE); }

std::optional<Ring::Record> Ring::At(uint64_t position) const {
  if (position >= ProducerPosition()) return std::nullopt;
  const uint8_t *at = producer_ + sysconf(_SC_PAGESIZE) + (position & (size_ - 1));
  uint32_t word = __atomic_load_n(reinterpret_cast<const uint32_t *>(at), __ATOMIC_ACQUIRE);
  if (word & BPF_RINGBUF_BUSY_BIT) return std::nullopt;
  uint32_t length = word & ~uint32_t(BPF_RINGBUF_DISCARD_BIT);
  uint64_t end = position + ((length + BPF_RINGBUF_HDR_SZ + 7) & ~7u);
  if (word & BPF_RINGBUF_DISCARD_BIT) return Record{end, nullptr, nullptr};
  const uint8_t *record = at + BPF_RINGBUF_HDR_SZ;
  return Record{end, reinterpret_cast<const RecordHeader *>(record), record + sizeof(RecordHeader)};
}

void Ring::Release(uint64_t position) {
  __atomic_store_n(reinterpret_cast<uint64_t *>(consumer_), position, __ATOMIC_RELEASE);
}

// sendFrames(ifindex, frames): puts frames on a device, as any program would: unmarked, through its queueing discipline.
static Napi::Value SendFrames(const Napi::CallbackInfo &info) {
  auto frames = info[1].As<Napi::Array>();
  int error = 0;
  try {
    Descriptor socket = OpenSender(0, false);
    for (uint32_t i = 0; i < frames.Length() && error == 0; i++) {
      auto frame = frames.Get(i).As<Napi::Buffer<uint8_t>>();
      FrameView view{frame.Data(), uint32_t(frame.Length()), 0, false, {}};
      error = SendFrame(socket.get(), info[0].As<Napi::Number>().Int32Value(), view);
    }
  } catch (const SyscallError &failure) {
    ThrowErrno(info.Env(), failure.error, failure.syscall);
  }
  if (error != 0) ThrowErrno(info.Env(), error, "sendmsg(AF_PACKET)");
  return info.Env().Undefined();
}

// isReadable(fd): whether a read would return at once.
static Napi::Value IsReadable(const Napi::CallbackInfo &info) {
  pollfd watched{info[0].As<Napi::Number>().Int32Value(), POLLIN, 0};
  if (poll(&watched, 1, 0) < 0) ThrowErrno(info.Env(), errno, "poll");
  if (watched.revents & POLLNVAL) ThrowErrno(info.Env(), EBADF, "poll");
  return Napi::Boolean::New(info.Env(), (watched.revents & POLLIN) != 0);
}

static Facility facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("isReadable", Napi::Function::New(env, IsReadable));
  exports.Set("sendFrames", Napi::Function::New(env, SendFrames));
});

}  // namespace staghorn
