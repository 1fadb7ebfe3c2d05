// Sends numbered frames to devices, reads them from taps, and takes times, for the benchmark of the gate.
//
//   load pump COUNT BYTES                      from the tap at descriptor 3 to the tap at descriptor 4, through
//                                              whatever joins them; prints the nanoseconds of processor time that it took
//   load send COUNT RATE MIN MAX DEVICE...     COUNT frames of MIN to MAX bytes, to the devices in turn, RATE a
//                                              second (0: as fast as they go); prints how many a device refused
//   load read TAPS                             from the taps at descriptors 3 and up, until standard input ends and
//                                              every ring is empty; then one record for each frame, in order
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_FD = 3, MAX_TAPS = 64, MAX_BYTES = 9018, BATCH = 32, HEADER_BYTES = 18, READER_PRIORITY = 2 };
#define ETHER_TYPE 0x88b6  // IEEE 802 local experimental EtherType 2: no protocol of the kernel touches it

// What `read` writes for a frame (load.ts reads it).
struct record {
  uint64_t at_ns;
  uint32_t tap;
  uint32_t number;
  uint32_t bytes;
  uint32_t intact;
};

static void die(const char *what) {
  perror(what);
  exit(1);
}

static uint64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint8_t filler(uint32_t number, uint32_t at) { return (uint8_t)(number * 31 + at * 7); }

static void make_frame(uint8_t *frame, uint32_t number, uint32_t bytes) {
  static const uint8_t macs[12] = {2, 0, 0, 0, 0xbe, 0xef, 2, 0, 0, 0, 0xca, 0xfe};
  memcpy(frame, macs, sizeof macs);
  frame[12] = ETHER_TYPE >> 8;
  frame[13] = ETHER_TYPE & 0xff;
  uint32_t big_endian = htonl(number);
  memcpy(frame + 14, &big_endian, 4);
  for (uint32_t at = HEADER_BYTES; at < bytes; at++) frame[at] = filler(number, at);
}

static uint32_t number_of(const uint8_t *frame) {
  uint32_t big_endian;
  memcpy(&big_endian, frame + 14, 4);
  return ntohl(big_endian);
}

static int is_intact(const uint8_t *frame, uint32_t bytes) {
  uint32_t number = number_of(frame);
  for (uint32_t at = HEADER_BYTES; at < bytes; at++) {
    if (frame[at] != filler(number, at)) return 0;
  }
  return 1;
}

static int is_ours(const uint8_t *frame, ssize_t bytes) {
  return bytes >= HEADER_BYTES && frame[12] == ETHER_TYPE >> 8 && frame[13] == (ETHER_TYPE & 0xff);
}

// One thread does both ends, in small batches: a write returns when the far tap has the frame (tun_get_user calls
// netif_receive_skb itself), so nothing waits for a scheduler, nothing is dropped, and all of it is this thread's time.
static int pump(uint32_t count, uint32_t bytes) {
  static uint8_t frame[MAX_BYTES], got[MAX_BYTES];
  make_frame(frame, 0, bytes);
  uint64_t began_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
  uint32_t received = 0;
  for (uint32_t sent = 0; sent < count;) {
    for (uint32_t i = 0; i < BATCH && sent < count; i++, sent++) {
      if (write(FIRST_FD, frame, bytes) < 0) die("write");
    }
    while (received < sent) {
      struct pollfd ready = {FIRST_FD + 1, POLLIN, 0};
      if (poll(&ready, 1, 1000) != 1) die("a frame did not come through");
      ssize_t length = read(FIRST_FD + 1, got, sizeof got);
      if (length < 0 && errno != EAGAIN) die("read");
      if (is_ours(got, length)) received++;
    }
  }
  printf("%llu\n", (unsigned long long)(now_ns(CLOCK_THREAD_CPUTIME_ID) - began_ns));
  return 0;
}

static void sleep_until(uint64_t at_ns) {
  struct timespec at = {(time_t)(at_ns / 1000000000u), (long)(at_ns % 1000000000u)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) continue;
}

static int send_frames(uint32_t count, uint32_t rate, uint32_t min, uint32_t max, char **devices, uint32_t ports) {
  static uint8_t frame[MAX_BYTES];
  int sender = socket(AF_PACKET, SOCK_RAW, 0);
  if (sender < 0) die("socket");
  struct sockaddr_ll to[MAX_TAPS] = {0};
  for (uint32_t i = 0; i < ports; i++) {
    to[i].sll_family = AF_PACKET;
    to[i].sll_ifindex = (int)if_nametoindex(devices[i]);
  }
  prctl(PR_SET_TIMERSLACK, 1);
  uint32_t refused = 0;
  uint64_t began_ns = now_ns(CLOCK_MONOTONIC);
  for (uint32_t i = 0; i < count; i++) {
    if (rate > 0) sleep_until(began_ns + (uint64_t)i * 1000000000u / rate);
    uint32_t number = i / ports, bytes = min + (uint32_t)(number * 2654435761u) % (max - min + 1);
    make_frame(frame, number, bytes);
    const struct sockaddr_ll *port = &to[i % ports];
    if (sendto(sender, frame, bytes, 0, (const struct sockaddr *)port, sizeof *port) < 0) refused++;
  }
  printf("%u\n", refused);
  return 0;
}

struct records {
  struct record *all;
  size_t count, room;
};

// Takes up to a batch from a tap; 0 if there was nothing.
static int read_tap(uint32_t tap, struct records *records) {
  static uint8_t frame[MAX_BYTES];
  for (int i = 0; i < BATCH; i++) {
    ssize_t length = read(FIRST_FD + (int)tap, frame, sizeof frame);
    if (length < 0 && errno == EAGAIN) return i;
    if (length < 0) die("read");
    uint64_t at_ns = now_ns(CLOCK_MONOTONIC);
    if (!is_ours(frame, length)) continue;
    if (records->count == records->room) {
      records->room = records->room == 0 ? 1 << 19 : records->room * 2;
      records->all = realloc(records->all, records->room * sizeof *records->all);
      if (records->all == NULL) die("realloc");
    }
    uint32_t bytes = (uint32_t)length;
    records->all[records->count++] = (struct record){at_ns, tap, number_of(frame), bytes, (uint32_t)is_intact(frame, bytes)};
  }
  return 1;
}

static void write_all(const void *from, size_t length) {
  const char *at = from;
  while (length > 0) {
    ssize_t done = write(STDOUT_FILENO, at, length);
    if (done < 0) die("write");
    at += done;
    length -= (size_t)done;
  }
}

static int read_taps(uint32_t taps) {
  struct pollfd watched[MAX_TAPS + 1];
  for (uint32_t i = 0; i < taps; i++) watched[i] = (struct pollfd){FIRST_FD + (int)i, POLLIN, 0};
  watched[taps] = (struct pollfd){STDIN_FILENO, POLLIN, 0};
  // An ordinary thread would add the scheduler's delays to the times it takes.
  struct sched_param priority = {.sched_priority = READER_PRIORITY};
  if (sched_setscheduler(0, SCHED_FIFO, &priority) < 0) perror("reading without real-time priority");
  struct records records = {0};
  write_all("ready\n", 6);
  for (int ended = 0, got = 1; !ended || got;) {
    if (poll(watched, taps + 1, ended ? 0 : -1) < 0 && errno != EINTR) die("poll");
    char byte;
    if (!ended && watched[taps].revents) ended = read(STDIN_FILENO, &byte, 1) <= 0;
    got = 0;
    for (uint32_t i = 0; i < taps; i++) got |= read_tap(i, &records);
  }
  write_all(records.all, records.count * sizeof *records.all);
  return 0;
}

static uint32_t number_at(char **argv, int place) { return (uint32_t)strtoul(argv[place], NULL, 10); }

int main(int argc, char **argv) {
  if (argc == 4 && strcmp(argv[1], "pump") == 0) return pump(number_at(argv, 2), number_at(argv, 3));
  if (argc > 6 && argc <= 6 + MAX_TAPS && strcmp(argv[1], "send") == 0) {
    return send_frames(number_at(argv, 2), number_at(argv, 3), number_at(argv, 4), number_at(argv, 5), argv + 6,
                       (uint32_t)(argc - 6));
  }
  if (argc == 3 && strcmp(argv[1], "read") == 0 && number_at(argv, 2) <= MAX_TAPS) return read_taps(number_at(argv, 2));
  fprintf(stderr, "usage: see the head of load.c\n");
  return 2;
}
