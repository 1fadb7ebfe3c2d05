// Frames as the gate's program leaves them in the ring, and the way back onto a device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gate/bpf.h"

namespace staghorn {

// What the program writes in front of a frame. The frame follows, without a tag that the kernel keeps apart.
struct RecordHeader {
  uint32_t slot;
  uint32_t length;
  uint64_t at_ns;  // CLOCK_MONOTONIC
  uint64_t seq;
  uint32_t vlan_present;
  uint32_t vlan_tci;
  uint32_t vlan_proto;  // network order
  uint32_t gso_size;
  uint32_t protocol;  // network order
  uint32_t reserved;
};
static_assert(sizeof(RecordHeader) == 48);

// How many bytes of a frame a record may have room for: bpf_ringbuf_reserve takes nothing but constants. The last fits
// what GSO makes of 65,535 bytes of IP, with its Ethernet header.
constexpr int32_t kCapacities[] = {128, 512, 1536, 4096, 16384, 65664};
constexpr size_t kClasses = sizeof kCapacities / sizeof *kCapacities;

// A frame to be put on a device: a view of bytes that somebody else keeps.
struct FrameView {
  const uint8_t *bytes;
  uint32_t length;
  uint32_t gso_size;
  bool tagged;  // the tag below stands apart from the bytes
  uint8_t tag[4];
};

// struct virtio_net_hdr; its own header is not C++ in every release.
struct OffloadHeader {
  uint8_t flags;
  uint8_t gso_type;
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
};
static_assert(sizeof(OffloadHeader) == 10);

FrameView ViewOf(const RecordHeader &header, const uint8_t *bytes);
// The whole frame in one piece, tag put back.
std::vector<uint8_t> Flatten(const FrameView &frame);
// How the kernel must treat the frame: segmentation and a checksum left unfinished (include/uapi/linux/virtio_net.h).
OffloadHeader OffloadOf(const FrameView &frame);

// A packet socket that sends: marked for the gate's program, past the queueing discipline or through it.
Descriptor OpenSender(uint32_t mark, bool bypass_qdisc);
// 0, or an errno. ENOBUFS and EAGAIN: the device has no room now.
int SendFrame(int socket, int ifindex, const FrameView &frame);

// The memory of a BPF ring buffer (kernel/bpf/ringbuf.c): the consumer's page, then the producer's page and the
// data, mapped twice in a row so that a record never wraps. A record stays until the consumer position passes it.
class Ring {
 public:
  struct Record {
    uint64_t end;  // position after it
    const RecordHeader *header;  // null: a discarded record
    const uint8_t *bytes;
  };

  Ring(int map, uint32_t size_bytes);
  ~Ring();
  Ring(const Ring &) = delete;
  Ring &operator=(const Ring &) = delete;

  uint64_t ConsumerPosition() const;
  uint64_t ProducerPosition() const;
  // The record at a position; nothing if there is none, or if it is still being written.
  std::optional<Record> At(uint64_t position) const;
  void Release(uint64_t position);

 private:
  uint32_t size_;
  uint8_t *consumer_;
  uint8_t *producer_;
};

}  // namespace staghorn
