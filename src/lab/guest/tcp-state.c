// What the kernel says of the streams: TCP_INFO of each, as ss -ti prints it, and how often a retransmission timer ran
// out in all.
#include <fcntl.h>
#include <inttypes.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"

static bool read_info(int fd, struct tcp_info *info) {
  socklen_t length = sizeof *info;
  memset(info, 0, sizeof *info);
  return fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &length) == 0;
}

uint64_t retransmissions_of(int fd) {
  struct tcp_info info;
  return read_info(fd, &info) ? info.tcpi_total_retrans : 0;
}

uint64_t retransmissions(const struct probe *probe) {
  uint64_t sum = probe->closed_retransmissions;
  for (size_t i = 0; i < probe->peer_count; i++) {
    sum += retransmissions_of(probe->peers[i].out_fd) + retransmissions_of(probe->peers[i].in_fd);
  }
  return sum;
}

// A count that is 0 is left out: each byte costs on the way through the emulated serial line.
static size_t add_count(char *text, size_t size, const char *name, uint64_t value) {
  int n = value == 0 ? 0 : snprintf(text, size, ",\"%s\":%" PRIu64, name, value);
  return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

void describe_streams(const struct probe *probe, char *text, size_t size) {
  size_t end = 0;
  struct tcp_info info;
  text[0] = '\0';
  for (size_t i = 0; i < probe->peer_count; i++) {
    const struct peer *peer = &probe->peers[i];
    if (!peer->out_connected || size - end < STREAM_BYTES || !read_info(peer->out_fd, &info)) continue;
    end += (size_t)sprintf(text + end, "%s{\"to\":%u,\"rtoUs\":%u", end == 0 ? "" : ",", peer->id, info.tcpi_rto);
    end += add_count(text + end, size - end, "retransmissions", info.tcpi_total_retrans);
    end += add_count(text + end, size - end, "retransmits", info.tcpi_retransmits);
    end += add_count(text + end, size - end, "backoff", info.tcpi_backoff);
    end += add_count(text + end, size - end, "lost", info.tcpi_lost);
    end += (size_t)sprintf(text + end, "}");
  }
}

// A pair of lines for each protocol, names and then values (net/ipv4/proc.c, netstat_seq_show). TCP_INFO tells
// timeouts that go on, and not those that are over (tcpi_total_rto came with Linux 6.7).
static uint64_t value_called(const char *wanted, char *names, char *values) {
  char *name_rest, *value_rest;
  char *name = strtok_r(names, " ", &name_rest), *value = strtok_r(values, " ", &value_rest);
  for (; name != NULL && value != NULL; name = strtok_r(NULL, " ", &name_rest), value = strtok_r(NULL, " ", &value_rest)) {
    if (strcmp(name, wanted) == 0) return strtoull(value, NULL, 10);
  }
  return 0;
}

uint64_t retransmission_timeouts(void) {
  static char text[16384];
  int fd = open("/proc/net/netstat", O_RDONLY | O_CLOEXEC);
  ssize_t length = 0, n;
  if (fd < 0) return 0;
  while ((n = read(fd, text + length, sizeof text - 1 - (size_t)length)) > 0) length += n;
  close(fd);
  text[length] = '\0';
  char *line_rest, *names = strtok_r(text, "\n", &line_rest), *values = strtok_r(NULL, "\n", &line_rest);
  return names == NULL || values == NULL ? 0 : value_called("TCPTimeouts", names, values);
}
