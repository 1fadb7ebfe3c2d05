// A wire with a delay, in user space: every frame reaches the host that it is addressed to after exactly that host's
// delay, in order. Arguments: DEVICE:MICROSECONDS, one a host; the last byte of a MAC address is the host's number.
// It has no queueing discipline that a drain could look at: what is on it can only be known from what comes out.
// Says "ready" when it is.
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HOSTS_MAX = 16, FRAME_MAX = 9216, RECEIVE_BYTES = 16 << 20, LAST_BYTE_OF_MAC = 5 };

struct frame {
  struct frame *next;
  int64_t due_ns;
  size_t bytes;
  uint8_t data[];
};

struct end {
  int fd;
  int64_t delay_ns;
  struct frame *first;
  struct frame **last;
};

static struct end ends[HOSTS_MAX];
static struct pollfd polled[HOSTS_MAX];
static unsigned hosts;

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void open_end(struct end *end, char *argument) {
  const char *device = strtok(argument, ":");
  const char *delay_us = strtok(NULL, ":");
  if (device == NULL || delay_us == NULL) errx(2, "not DEVICE:MICROSECONDS");
  end->delay_ns = atoll(delay_us) * 1000;
  end->last = &end->first;
  // Bound with a protocol of 0 until all is set, a packet socket takes nothing (packet(7)).
  end->fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (end->fd < 0) err(1, "socket");
  const int bytes = RECEIVE_BYTES, on = 1;
  if (setsockopt(end->fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) ||
      setsockopt(end->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) ||
      setsockopt(end->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on))
    err(1, "setsockopt");
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
  address.sll_ifindex = (int)if_nametoindex(device);
  if (address.sll_ifindex == 0) err(1, "%s", device);
  if (bind(end->fd, (struct sockaddr *)&address, sizeof address)) err(1, "%s", device);
}

static void take_in(const struct end *from) {
  static uint8_t data[FRAME_MAX];
  for (;;) {
    const ssize_t bytes = recv(from->fd, data, sizeof data, MSG_TRUNC);
    if (bytes < 0 && errno == EAGAIN) return;
    if (bytes < ETH_HLEN || (size_t)bytes > sizeof data) err(1, "a frame of %zd bytes", bytes);
    // Neighbours are known in advance: nothing is sent to a group.
    const unsigned host = data[LAST_BYTE_OF_MAC];
    if (host >= hosts) continue;
    struct end *to = &ends[host];
    struct frame *frame = malloc(sizeof *frame + (size_t)bytes);
    if (frame == NULL) err(1, "malloc");
    *frame = (struct frame){.due_ns = now_ns() + to->delay_ns, .bytes = (size_t)bytes};
    memcpy(frame->data, data, (size_t)bytes);
    *to->last = frame;
    to->last = &frame->next;
  }
}

/// Returns when the next one is due, or INT64_MAX.
static int64_t give_out(struct end *to) {
  while (to->first != NULL && to->first->due_ns <= now_ns()) {
    struct frame *frame = to->first;
    if (send(to->fd, frame->data, frame->bytes, 0) != (ssize_t)frame->bytes) err(1, "send");
    to->first = frame->next;
    if (to->first == NULL) to->last = &to->first;
    free(frame);
  }
  return to->first == NULL ? INT64_MAX : to->first->due_ns;
}

int main(int count, char **arguments) {
  hosts = (unsigned)count - 1;
  if (hosts > HOSTS_MAX) errx(2, "too many hosts");
  for (unsigned host = 0; host < hosts; host++) {
    open_end(&ends[host], arguments[host + 1]);
    polled[host] = (struct pollfd){.fd = ends[host].fd, .events = POLLIN};
  }
  puts("ready");
  fflush(stdout);
  for (;;) {
    int64_t due_ns = INT64_MAX;
    for (unsigned host = 0; host < hosts; host++) {
      const int64_t next_ns = give_out(&ends[host]);
      if (next_ns < due_ns) due_ns = next_ns;
    }
    const int64_t left_ns = due_ns - now_ns();
    const struct timespec left = {.tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000};
    if (left_ns > 0 && ppoll(polled, hosts, due_ns == INT64_MAX ? NULL : &left, NULL) < 0) err(1, "ppoll");
    for (unsigned host = 0; host < hosts; host++) take_in(&ends[host]);
  }
}
