// One TCP stream to every peer, with contents that the receiver knows.
#include <errno.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

enum {
  CHUNK_BYTES = 4096,
  // Enough for several ticks of a stream that only its window limits: the kernel goes on when the probe is late.
  UNSENT_BYTES = 65536,
  RETRY_NS = 200000000,
};

static const uint32_t MAGIC = 0x53545243;

struct greeting {
  uint32_t magic, from;
};

static void watch(int epoll, int op, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  epoll_ctl(epoll, op, fd, &event);
}

// The clamp bounds what is in flight towards this guest exactly (tcp(7), TCP_WINDOW_CLAMP); set before listen()
// it holds from the first segment on, and so does the segment size.
int open_listener(const struct probe *probe) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int on = 1, buffer = 1 << 18;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (probe->window_bytes > 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    setsockopt(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &probe->window_bytes, sizeof probe->window_bytes);
  }
  if (probe->segment_bytes > 0) {
    setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &probe->segment_bytes, sizeof probe->segment_bytes);
  }
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(TCP_PORT)};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, MAX_PEERS) < 0) return -1;
  return fd;
}

static void drop_in(struct probe *probe, struct peer *peer) {
  close(peer->in_fd);
  peer->in_fd = -1;
  probe->tcp_failures++;
}

void accept_streams(struct probe *probe, int listener, int epoll) {
  struct sockaddr_in from;
  socklen_t length = sizeof from;
  int fd;
  while ((fd = accept4(listener, (struct sockaddr *)&from, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    struct peer *peer = NULL;
    for (size_t i = 0; i < probe->peer_count; i++) {
      if (probe->peers[i].tcp_address.sin_addr.s_addr == from.sin_addr.s_addr) peer = &probe->peers[i];
    }
    if (peer == NULL) {
      close(fd);
      continue;
    }
    if (peer->in_fd >= 0) drop_in(probe, peer);
    peer->in_fd = fd;
    peer->in_position = 0;
    watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN);
  }
}

static void take(struct probe *probe, struct peer *peer, const uint8_t *bytes, size_t length) {
  uint64_t seed = pair_seed(peer->id, probe->id);
  struct greeting expected = {MAGIC, peer->id};
  size_t done = 0;
  for (; done < length && peer->in_position < sizeof expected; done++) {
    probe->tcp_mismatches += bytes[done] != ((uint8_t *)&expected)[peer->in_position++];
  }
  probe->tcp_mismatches += count_mismatches(bytes + done, length - done, seed, peer->in_position);
  peer->in_position += length - done;
  probe->tcp_bytes += length;
}

void receive_stream(struct probe *probe, int fd, int epoll) {
  static uint8_t buffer[16384];
  (void)epoll;
  for (size_t i = 0; i < probe->peer_count; i++) {
    struct peer *peer = &probe->peers[i];
    if (peer->in_fd != fd) continue;
    ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n > 0) take(probe, peer, buffer, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR)) drop_in(probe, peer);
    return;
  }
}

static void drop_out(struct probe *probe, struct peer *peer) {
  probe->closed_retransmissions += retransmissions_of(peer->out_fd);
  close(peer->out_fd);
  peer->out_fd = -1;
  peer->out_connected = false;
  peer->retry_at_ns = clock_ns(CLOCK_MONOTONIC) + RETRY_NS;
  probe->tcp_failures++;
}

static void start_connecting(struct probe *probe, struct peer *peer, int epoll) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int unsent = UNSENT_BYTES, buffer = 4 * UNSENT_BYTES;
  if (peer->tcp_bytes_per_second < 0) setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
  peer->out_fd = fd;
  peer->out_connected = false;
  peer->out_position = 0;
  if (connect(fd, (struct sockaddr *)&peer->tcp_address, sizeof peer->tcp_address) < 0 && errno != EINPROGRESS) {
    drop_out(probe, peer);
    return;
  }
  watch(epoll, EPOLL_CTL_ADD, fd, EPOLLOUT);
}

static ssize_t write_chunk(struct probe *probe, struct peer *peer, size_t limit) {
  uint8_t chunk[CHUNK_BYTES];
  size_t length = limit < sizeof chunk ? limit : sizeof chunk, done = 0;
  struct greeting greeting = {MAGIC, probe->id};
  for (; done < length && peer->out_position + done < sizeof greeting; done++) {
    chunk[done] = ((uint8_t *)&greeting)[peer->out_position + done];
  }
  fill_pattern(chunk + done, length - done, pair_seed(probe->id, peer->id), peer->out_position + done);
  ssize_t n = send(peer->out_fd, chunk, length, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n > 0) peer->out_position += (uint64_t)n;
  else if (n < 0 && errno != EAGAIN && errno != EINTR) drop_out(probe, peer);
  return n;
}

static void write_stream(struct probe *probe, struct peer *peer) {
  bool limited = peer->tcp_bytes_per_second > 0;
  for (int i = 0; i < UNSENT_BYTES / CHUNK_BYTES; i++) {
    if (limited && peer->credit_bytes < peer->segment_bytes) return;
    ssize_t n = write_chunk(probe, peer, limited ? (size_t)peer->credit_bytes : CHUNK_BYTES);
    if (n <= 0) return;
    if (limited) peer->credit_bytes -= n;
    if (n < CHUNK_BYTES) return;
  }
}

// A stream with a limited rate is written by the clock, so it does not ask for EPOLLOUT once it is connected.
void stream_writable(struct probe *probe, struct peer *peer, int epoll) {
  if (!peer->out_connected) {
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(peer->out_fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) {
      drop_out(probe, peer);
      return;
    }
    peer->out_connected = true;
    // Below a full segment, a stream with a limited rate saves up its share: full segments cost least.
    length = sizeof peer->segment_bytes;
    getsockopt(peer->out_fd, IPPROTO_TCP, TCP_MAXSEG, &peer->segment_bytes, &length);
    if (peer->tcp_bytes_per_second > 0) watch(epoll, EPOLL_CTL_MOD, peer->out_fd, 0);
  }
  write_stream(probe, peer);
}

void advance_stream(struct probe *probe, struct peer *peer, int epoll, int64_t now_ns, int64_t elapsed_ns) {
  if (peer->tcp_bytes_per_second == 0 || !peer->hears_us) return;
  if (peer->out_fd < 0) {
    if (now_ns >= peer->retry_at_ns) start_connecting(probe, peer, epoll);
    return;
  }
  if (!peer->out_connected || peer->tcp_bytes_per_second < 0) return;
  int64_t most = peer->tcp_bytes_per_second / 4 + peer->segment_bytes;
  peer->credit_bytes += peer->tcp_bytes_per_second * (elapsed_ns / 1000) / 1000000;
  if (peer->credit_bytes > most) peer->credit_bytes = most;
  write_stream(probe, peer);
}
