// A sniffer: writes every frame that the named interfaces see, in both directions, to a pcapng file
// (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3). Says "ready" once all of them are open, and ends on SIGTERM; with
// an error if the kernel had to leave a frame out.
// Usage: capture FILE INTERFACE...
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <arpa/inet.h>

enum { MOST_INTERFACES = 32, SNAP_BYTES = 65536, BUFFER_BYTES = 16 << 20, INBOUND = 1, OUTBOUND = 2 };

static volatile sig_atomic_t stopping;

static void stop(int signal_number) {
  (void)signal_number;
  stopping = 1;
}

static void put32(FILE *file, uint32_t value) { fwrite(&value, 4, 1, file); }

static void put_padded(FILE *file, const void *bytes, uint32_t length) {
  static const char zeros[4];
  fwrite(bytes, 1, length, file);
  fwrite(zeros, 1, -length & 3, file);
}

static uint32_t padded(uint32_t length) { return (length + 3) & ~3u; }

static void put_section(FILE *file) {
  // Byte order, version 1.0, length of the section unknown.
  const uint32_t block[] = {0x0a0d0d0a, 28, 0x1a2b3c4d, 1, 0xffffffff, 0xffffffff, 28};
  fwrite(block, sizeof block, 1, file);
}

static void put_interface(FILE *file, const char *name) {
  uint32_t length = (uint32_t)strlen(name), total = 20 + 4 + padded(length) + 8 + 4;
  put32(file, 1);
  put32(file, total);
  put32(file, 1);  // LINKTYPE_ETHERNET
  put32(file, SNAP_BYTES);
  put32(file, 2 | length << 16);  // if_name
  put_padded(file, name, length);
  put32(file, 9 | 1 << 16);  // if_tsresol: nanoseconds
  put32(file, 9);
  put32(file, 0);
  put32(file, total);
}

static void put_packet(FILE *file, uint32_t interface, const void *bytes, uint32_t length, uint32_t flags) {
  struct timespec now;
  uint32_t total = 32 + padded(length) + 12;
  clock_gettime(CLOCK_REALTIME, &now);
  uint64_t at_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
  const uint32_t head[] = {6, total, interface, (uint32_t)(at_ns >> 32), (uint32_t)at_ns, length, length};
  const uint32_t tail[] = {2 | 4 << 16, flags, 0, total};  // epb_flags
  fwrite(head, sizeof head, 1, file);
  put_padded(file, bytes, length);
  fwrite(tail, sizeof tail, 1, file);
}

static int open_interface(const char *name) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), size = BUFFER_BYTES;
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
  address.sll_ifindex = (int)if_nametoindex(name);
  if (fd < 0 || address.sll_ifindex == 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
  return bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -1 : fd;
}

static void take(FILE *file, uint32_t interface, int fd) {
  static uint8_t frame[SNAP_BYTES];
  struct sockaddr_ll from;
  for (;;) {
    socklen_t length = sizeof from;
    ssize_t n = recvfrom(fd, frame, sizeof frame, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
    if (n < 0) return;
    put_packet(file, interface, frame, (uint32_t)n, from.sll_pkttype == PACKET_OUTGOING ? OUTBOUND : INBOUND);
  }
}

static uint32_t dropped(int fd) {
  struct tpacket_stats stats = {0};
  socklen_t length = sizeof stats;
  getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &length);
  return stats.tp_drops;
}

int main(int argc, char **argv) {
  struct pollfd sockets[MOST_INTERFACES];
  nfds_t count = 0;
  uint32_t missed = 0;
  struct sigaction action = {.sa_handler = stop};
  FILE *file = argc < 3 || argc - 2 > MOST_INTERFACES ? NULL : fopen(argv[1], "w");
  if (file == NULL) return 2;
  sigaction(SIGTERM, &action, NULL);
  put_section(file);
  for (int i = 2; i < argc; i++) {
    int fd = open_interface(argv[i]);
    if (fd < 0) {
      perror(argv[i]);
      return 1;
    }
    put_interface(file, argv[i]);
    sockets[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
  }
  puts("ready");
  fflush(stdout);
  while (!stopping) {
    // An interface that goes down is an error on its socket, once; it may come up again.
    if (poll(sockets, count, 100) <= 0) continue;
    for (nfds_t i = 0; i < count; i++) take(file, (uint32_t)i, sockets[i].fd);
  }
  for (nfds_t i = 0; i < count; i++) {
    take(file, (uint32_t)i, sockets[i].fd);
    missed += dropped(sockets[i].fd);
  }
  if (missed > 0) fprintf(stderr, "%u frames found no room\n", missed);
  return fclose(file) != 0 || missed > 0;
}
