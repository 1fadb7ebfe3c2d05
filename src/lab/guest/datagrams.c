// Sequence-numbered UDP between all peers.
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "probe.h"

static const uint32_t MAGIC = 0x53544147;

struct datagram {
  uint32_t magic;
  uint16_t from;
  uint8_t hears_you;
  uint8_t counted;
  uint64_t sequence;
  uint8_t pattern[48];
};

int open_udp(void) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int size = 1 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(UDP_PORT)};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) return -1;
  return fd;
}

// Until the peer says that it hears us, datagrams are greetings and not counted: the boot shows no losses.
void send_datagram(struct probe *probe, int fd, struct peer *peer, int64_t now_ns) {
  if (now_ns < peer->next_due_ns) return;
  peer->next_due_ns += peer->udp_interval_ns;
  // A guest that was held up does not send what it missed in one burst.
  if (peer->next_due_ns <= now_ns) peer->next_due_ns = now_ns + peer->udp_interval_ns;
  struct datagram d = {
      .magic = MAGIC,
      .from = (uint16_t)probe->id,
      .hears_you = peer->heard,
      .counted = peer->hears_us,
      .sequence = peer->hears_us ? peer->sent + 1 : 0,
  };
  fill_pattern(d.pattern, sizeof d.pattern, pair_seed(probe->id, peer->id), d.sequence);
  ssize_t n = sendto(fd, &d, sizeof d, MSG_DONTWAIT, (struct sockaddr *)&peer->udp_address, sizeof peer->udp_address);
  if (n == (ssize_t)sizeof d) peer->sent += d.counted;
  else probe->send_errors += d.counted;
}

static struct peer *peer_by_id(struct probe *probe, unsigned id) {
  for (size_t i = 0; i < probe->peer_count; i++) {
    if (probe->peers[i].id == id) return &probe->peers[i];
  }
  return NULL;
}

static void take(struct probe *probe, const struct datagram *d) {
  struct peer *peer = peer_by_id(probe, d->from);
  if (peer == NULL) return;
  if (count_mismatches(d->pattern, sizeof d->pattern, pair_seed(peer->id, probe->id), d->sequence) > 0) {
    probe->corrupted++;
    return;
  }
  peer->heard = true;
  if (d->hears_you) peer->hears_us = true;
  if (!d->counted) return;
  peer->counted_heard = true;
  judge_sequence(&peer->judge, d->sequence);
}

void receive_datagrams(struct probe *probe, int fd) {
  struct datagram d;
  for (int i = 0; i < 64; i++) {
    ssize_t n = recv(fd, &d, sizeof d, MSG_DONTWAIT);
    if (n < 0) return;
    if (n == (ssize_t)sizeof d && d.magic == MAGIC) take(probe, &d);
    else probe->corrupted++;
  }
}
