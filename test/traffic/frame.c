// A frame: addresses, tags, EtherType, then (for one that is to be segmented) headers of IPv4 and TCP, then a label
// with flow, number, virtual time of sending and a checksum, then bytes that follow from flow and number.
#include <arpa/inet.h>
#include <linux/virtio_net.h>
#include <string.h>

#include "traffic.h"

enum { MAGIC = 0x54474753, MACS_BYTES = 2 * ETH_ALEN, TAG_BYTES = 4, IPV4_BYTES = 20, TCP_BYTES = 20 };

struct label {
  uint32_t magic, flow;
  uint64_t number;
  int64_t sent_ns;
  uint32_t length;    // of the frame without its tags
  uint32_t checksum;
} __attribute__((packed));

// SplitMix64 (Steele, Lea, Flood 2014).
uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t hash_bytes(uint64_t hash, const uint8_t *bytes, size_t length) {
  for (; length > 0;) {
    uint64_t word = 0;
    size_t take = length < sizeof word ? length : sizeof word;
    memcpy(&word, bytes, take);
    hash = (hash ^ word ^ take) * 0x9fb21c651e98df25;
    hash ^= hash >> 29;
    bytes += take;
    length -= take;
  }
  return hash;
}

// Over all but tags, and the headers that segmentation offload may complete on the way.
static uint32_t checksum_of(const uint8_t *frame, uint16_t type, const uint8_t *label_at, size_t label_and_payload) {
  struct label label;
  memcpy(&label, label_at, sizeof label);
  label.checksum = 0;
  uint64_t hash = hash_bytes(type, frame, MACS_BYTES);
  hash = hash_bytes(hash, (const uint8_t *)&label, sizeof label);
  hash = hash_bytes(hash, label_at + sizeof label, label_and_payload - sizeof label);
  return (uint32_t)(hash ^ hash >> 32);
}

static uint32_t add_words(uint32_t sum, const uint8_t *bytes, size_t length) {
  for (size_t i = 0; i + 1 < length; i += 2) sum += (uint32_t)(bytes[i] << 8 | bytes[i + 1]);
  return sum;
}

static void put16(uint8_t *at, uint32_t value) {
  while (value >> 16) value = (value & 0xffff) + (value >> 16);
  at[0] = (uint8_t)(value >> 8);
  at[1] = (uint8_t)value;
}

// IPv4 and TCP with an unfinished checksum: only the sum of the pseudo header (RFC 9293, 3.1).
static void put_headers(uint8_t *ip, const uint8_t from[ETH_ALEN], const struct flow *flow, size_t ip_bytes) {
  uint8_t *tcp = ip + IPV4_BYTES;
  memset(ip, 0, IPV4_BYTES + TCP_BYTES);
  ip[0] = 0x45;
  put16(ip + 2, (uint32_t)ip_bytes);
  ip[6] = 0x40;  // don't fragment
  ip[8] = 64;
  ip[9] = IPPROTO_TCP;
  ip[12] = ip[16] = 10;
  memcpy(ip + 13, from + 3, 3);
  memcpy(ip + 17, flow->to + 3, 3);
  put16(ip + 10, add_words(0, ip, IPV4_BYTES));
  ip[10] = (uint8_t)~ip[10];
  ip[11] = (uint8_t)~ip[11];
  put16(tcp, 40000);
  put16(tcp + 2, flow->id);
  put16(tcp + 4, (uint32_t)flow->next & 0xffff);
  tcp[12] = TCP_BYTES / 4 << 4;
  tcp[13] = 0x10;  // ACK
  put16(tcp + 14, 0xffff);
  put16(tcp + 16, add_words(IPPROTO_TCP + (uint32_t)ip_bytes - IPV4_BYTES, ip + 12, 8));
}

static void put_offload(uint8_t *header, const struct flow *flow, size_t ip_at) {
  struct virtio_net_hdr offload = {
      .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
      .csum_start = (uint16_t)(ip_at + IPV4_BYTES),
      .csum_offset = 16,
      .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
      .gso_size = (uint16_t)flow->gso_bytes,
      .hdr_len = (uint16_t)(ip_at + IPV4_BYTES + TCP_BYTES),
  };
  memcpy(header, &offload, sizeof offload);
}

size_t build_frame(uint8_t *buffer, uint32_t header_bytes, const uint8_t from[ETH_ALEN], struct flow *flow, int64_t sent_ns) {
  uint8_t *frame = buffer + header_bytes, *at = frame;
  uint32_t length = flow->min_bytes + (uint32_t)(next_random(&flow->random) % (flow->max_bytes - flow->min_bytes + 1));
  memset(buffer, 0, header_bytes);
  memcpy(at, flow->to, ETH_ALEN);
  memcpy(at + ETH_ALEN, from, ETH_ALEN);
  at += MACS_BYTES;
  for (uint32_t i = 0; i < flow->tags; i++, at += TAG_BYTES) {
    put16(at, flow->tag[i].type);
    put16(at + 2, flow->tag[i].tci);
  }
  uint16_t type = flow->gso_bytes ? ETHERTYPE_IP : flow->ether_type;
  put16(at, type);
  at += 2;
  size_t headers = flow->gso_bytes ? IPV4_BYTES + TCP_BYTES : 0;
  if (headers) {
    put_headers(at, from, flow, length - ETH_HLEN);
    if (length - ETH_HLEN - headers > flow->gso_bytes) put_offload(buffer, flow, (size_t)(at - frame));
  }
  at += headers;
  struct label label = {MAGIC, flow->id, flow->next, sent_ns, length, 0};
  memcpy(at, &label, sizeof label);
  size_t payload = length - ETH_HLEN - headers - sizeof label;
  uint64_t filling = (uint64_t)flow->id << 40 ^ flow->next;
  for (size_t i = 0; i < payload; i += sizeof filling) {
    next_random(&filling);
    memcpy(at + sizeof label + i, &filling, payload - i < sizeof filling ? payload - i : sizeof filling);
  }
  label.checksum = checksum_of(frame, type, at, sizeof label + payload);
  memcpy(at, &label, sizeof label);
  return header_bytes + length + flow->tags * TAG_BYTES;
}

static uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static bool is_tag(uint16_t type) { return type == 0x8100 || type == 0x88a8 || type == 0x9100; }

enum verdict parse_frame(const uint8_t *frame, size_t length, struct parsed *parsed) {
  size_t at = MACS_BYTES;
  *parsed = (struct parsed){0};
  while (at + TAG_BYTES + 2 <= length && parsed->tags < TAGS_MAX && is_tag(get16(frame + at))) {
    parsed->tag[parsed->tags++] = (struct tag){get16(frame + at), get16(frame + at + 2)};
    at += TAG_BYTES;
  }
  if (at + 2 + sizeof(struct label) > length) return FRAME_FOREIGN;
  uint16_t type = get16(frame + at);
  at += 2;
  bool headers = type == ETHERTYPE_IP && frame[at] == 0x45 && frame[at + 9] == IPPROTO_TCP;
  if (headers) at += IPV4_BYTES + TCP_BYTES;
  struct label label;
  if (at + sizeof label > length) return FRAME_FOREIGN;
  memcpy(&label, frame + at, sizeof label);
  if (label.magic != MAGIC) return FRAME_FOREIGN;
  size_t present = length - parsed->tags * TAG_BYTES;
  size_t before = ETH_HLEN + (headers ? IPV4_BYTES + TCP_BYTES : 0);
  if (label.flow >= FLOWS_MAX || label.length > present || label.length < before + sizeof label) return FRAME_CORRUPTED;
  // Only what is too short for a wire may have been filled up.
  parsed->padded = label.length < present;
  if (parsed->padded && present > ETH_ZLEN + TAG_BYTES) return FRAME_CORRUPTED;
  if (checksum_of(frame, type, frame + at, label.length - before) != label.checksum) return FRAME_CORRUPTED;
  parsed->flow = label.flow;
  parsed->number = label.number;
  parsed->sent_ns = label.sent_ns;
  parsed->length = label.length;
  return FRAME_GOOD;
}
