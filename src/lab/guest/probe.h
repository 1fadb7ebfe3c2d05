// What the parts of the probe share: the configuration, the peers, and what is counted about each of them.
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  MAX_PEERS = 64,
  UDP_PORT = 7001,
  TCP_PORT = 7002,
  // A sequence number is judged lost once the highest one seen is this far ahead of it …
  LOSS_WINDOW = 32,
  // … and is still told apart (late or duplicate) while it is among the last REMEMBERED.
  REMEMBERED = 1024,
  // At most, of what is said about one stream.
  STREAM_BYTES = 160,
};

struct judge {
  uint64_t highest;
  uint64_t seen[REMEMBERED / 64];
  uint64_t received, lost, duplicated, reordered;
};

struct peer {
  unsigned id;
  struct sockaddr_in udp_address, tcp_address;
  int64_t udp_interval_ns;
  int64_t tcp_bytes_per_second;  // 0: no stream, -1: as fast as the window allows
  // Datagrams to the peer. They are counted from the first one after the peer said that it hears us.
  int64_t next_due_ns;
  uint64_t sent;
  bool hears_us, heard, counted_heard;
  struct judge judge;
  // The stream to the peer.
  int out_fd;
  bool out_connected;
  int segment_bytes;
  uint64_t out_position;
  int64_t credit_bytes, retry_at_ns;
  // The stream from the peer.
  int in_fd;
  uint64_t in_position;
};

struct probe {
  const char *name;
  unsigned id;
  int window_bytes, segment_bytes;
  unsigned least_timeout_ms;
  bool receives_tcp;
  int64_t report_interval_ns;
  struct peer peers[MAX_PEERS];
  size_t peer_count;
  uint64_t corrupted, send_errors, tcp_bytes, tcp_mismatches, tcp_failures, closed_retransmissions;
};

int64_t clock_ns(int clock_id);
void judge_sequence(struct judge *judge, uint64_t sequence);
// A byte sequence that depends on the pair and the position only, so that a receiver knows every byte.
void fill_pattern(uint8_t *bytes, size_t length, uint64_t seed, uint64_t position);
size_t count_mismatches(const uint8_t *bytes, size_t length, uint64_t seed, uint64_t position);
uint64_t pair_seed(unsigned from, unsigned to);

void configure(struct probe *probe, char *command_line);
bool add_route(const struct peer *peer, const char *interface, uint32_t least_timeout_ms);

int open_udp(void);
void send_datagram(struct probe *probe, int fd, struct peer *peer, int64_t now_ns);
void receive_datagrams(struct probe *probe, int fd);

int open_listener(const struct probe *probe);
void accept_streams(struct probe *probe, int listener, int epoll);
void receive_stream(struct probe *probe, int fd, int epoll);
// Gives the stream its share of the time since the last call, connects it where needed, and writes.
void advance_stream(struct probe *probe, struct peer *peer, int epoll, int64_t now_ns, int64_t elapsed_ns);
void stream_writable(struct probe *probe, struct peer *peer, int epoll);

uint64_t retransmissions_of(int fd);
// Of all streams since the boot.
uint64_t retransmissions(const struct probe *probe);
uint64_t retransmission_timeouts(void);
// The streams to peers as elements of a JSON array.
void describe_streams(const struct probe *probe, char *text, size_t size);

// Begins to keep a count on every disk there is, in processes of their own.
void keep_disks(const char *guest);

struct clocks {
  int64_t last_wake_ns, largest_gap_ns, second_gap_ns;
  int64_t jump_ns, tsc_jump_ns;
  int64_t realtime_offset_ns, boottime_offset_ns, offset_uncertainty_ns;
  uint64_t base_tsc, last_tsc;
  int64_t base_monotonic_ns, last_monotonic_ns;
  double tsc_per_ns;
  bool have_offsets, have_tsc;
};

void observe_clocks(struct clocks *clocks);
void reset_clocks(struct clocks *clocks);
