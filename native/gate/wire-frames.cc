// What the network card of the sender would have done with a frame that never met one: a frame from a process on
// the same host comes with an unfinished checksum, and TCP in pieces of up to 64 KiB (generic segmentation offload).
// XDP does not see how such a frame is to be cut; the MTU says how long its pieces may be.
#include <algorithm>
#include <cstring>

#include "gate/edge.h"

namespace staghorn {

namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint32_t kMacsBytes = 12;
constexpr uint8_t kGsoTcp4 = 1, kGsoTcp6 = 4;  // VIRTIO_NET_HDR_*
constexpr uint8_t kFin = 1, kPush = 8, kWindowReduced = 0x80;
constexpr uint8_t kTcp = 6;

uint16_t Read16(const uint8_t *at) { return uint16_t(at[0] << 8 | at[1]); }
uint32_t Read32(const uint8_t *at) { return uint32_t(Read16(at)) << 16 | Read16(at + 2); }
void Write16(uint8_t *at, uint32_t value) {
  at[0] = uint8_t(value >> 8);
  at[1] = uint8_t(value);
}

// Ones' complement sum (RFC 1071).
uint32_t Sum(const uint8_t *at, size_t length, uint32_t sum = 0) {
  uint64_t total = sum;
  for (size_t i = 0; i + 1 < length; i += 2) total += Read16(at + i);
  if (length % 2) total += uint32_t(at[length - 1]) << 8;
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  return uint32_t(total);
}

uint32_t NetworkOffset(const Bytes &frame) {
  uint32_t at = kMacsBytes;
  while (at + 4 <= frame.size() && (Read16(&frame[at]) == 0x8100 || Read16(&frame[at]) == 0x88a8)) at += 4;
  return std::min<uint32_t>(at + 2, uint32_t(frame.size()));
}

// The field holds the sum of the pseudo header, as the kernel leaves it (CHECKSUM_PARTIAL).
void FinishChecksum(Bytes &frame, const OffloadHeader &offload) {
  uint8_t *field = &frame[offload.csum_start + offload.csum_offset];
  uint16_t sum = uint16_t(~Sum(&frame[offload.csum_start], frame.size() - offload.csum_start));
  bool udp = offload.csum_offset == 6;
  Write16(field, sum == 0 && udp ? 0xffff : sum);  // RFC 768: 0 would say "none"
}

struct Layout {
  uint32_t network, transport, payload;
  bool ipv6;
};

void FitNetworkHeader(Bytes &frame, const Layout &at, uint32_t number) {
  uint8_t *ip = &frame[at.network];
  uint32_t length = uint32_t(frame.size()) - at.network;
  if (at.ipv6) return Write16(ip + 4, length - 40);
  Write16(ip + 2, length);
  Write16(ip + 4, Read16(ip + 4) + number);
  Write16(ip + 10, 0);
  Write16(ip + 10, uint16_t(~Sum(ip, at.transport - at.network)));
}

void FitTransportHeader(Bytes &frame, const Layout &at, uint32_t offset, bool first, bool last) {
  uint8_t *ip = &frame[at.network], *tcp = &frame[at.transport];
  uint32_t length = uint32_t(frame.size()) - at.transport;
  uint32_t sequence = Read32(tcp + 4) + offset;
  Write16(tcp + 4, sequence >> 16);
  Write16(tcp + 6, sequence);
  if (!first) tcp[13] &= uint8_t(~kWindowReduced);
  if (!last) tcp[13] &= uint8_t(~(kFin | kPush));
  uint32_t pseudo = at.ipv6 ? Sum(ip + 8, 32) : Sum(ip + 12, 8);
  Write16(tcp + 16, 0);
  Write16(tcp + 16, uint16_t(~Sum(tcp, length, pseudo + kTcp + length)));
}

// As tcp_gso_segment of net/ipv4/tcp_offload.c does.
std::vector<Bytes> Segments(const Bytes &whole, const Layout &at, uint32_t mtu) {
  uint32_t headers = at.payload - at.network;
  if (mtu <= headers) return {};
  uint32_t most = mtu - headers, total = uint32_t(whole.size()) - at.payload;
  std::vector<Bytes> segments;
  for (uint32_t offset = 0; offset < total; offset += most) {
    uint32_t length = std::min(most, total - offset);
    Bytes segment(whole.begin(), whole.begin() + at.payload);
    auto payload = whole.begin() + at.payload + offset;
    segment.insert(segment.end(), payload, payload + length);
    FitNetworkHeader(segment, at, uint32_t(segments.size()));
    FitTransportHeader(segment, at, offset, offset == 0, offset + length == total);
    segments.push_back(std::move(segment));
  }
  return segments;
}

}  // namespace

std::vector<Bytes> WireFrames(const FrameView &frame, uint32_t mtu) {
  Bytes whole = Flatten(frame);
  FrameView flat{whole.data(), uint32_t(whole.size()), 0, false, {}};
  uint32_t network = NetworkOffset(whole);
  if (whole.size() - network <= mtu) {
    OffloadHeader offload = OffloadOf(flat);
    if (offload.flags != 0) FinishChecksum(whole, offload);
    return {std::move(whole)};
  }
  flat.gso_size = 1;  // asks for the layout as well
  OffloadHeader offload = OffloadOf(flat);
  if (offload.gso_type != kGsoTcp4 && offload.gso_type != kGsoTcp6) return {};
  return Segments(whole, {network, offload.csum_start, offload.hdr_len, offload.gso_type == kGsoTcp6}, mtu);
}

}  // namespace staghorn
