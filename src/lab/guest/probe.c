// The probe: PID 1 of a lab's guest. It talks to every peer by UDP and TCP, judges what comes in, watches the
// guest's clocks, and writes one JSON line a second to the console. It sleeps in epoll between packets, because
// a guest that spins under TCG disturbs every timing on the machine.
#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

enum { LARGEST_TICK_NS = 10000000 };

static struct probe probe = {.report_interval_ns = 1000000000};
static struct clocks clocks;

static void add_peer(struct probe *p, const char *text) {
  char address[16], interface[IFNAMSIZ] = "nic";
  unsigned id, udp_interval_ms;
  long long tcp_bytes_per_second;
  struct peer *peer = &p->peers[p->peer_count];
  if (p->peer_count == MAX_PEERS) return;
  if (sscanf(text, "%u,%15[0-9.],%*[^,],%12[^,],%u,%lld", &id, address, interface + 3, &udp_interval_ms, &tcp_bytes_per_second) != 5) return;
  *peer = (struct peer){.id = id, .out_fd = -1, .in_fd = -1, .tcp_bytes_per_second = tcp_bytes_per_second};
  peer->udp_interval_ns = udp_interval_ms * 1000000ll;
  peer->udp_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(UDP_PORT)};
  inet_pton(AF_INET, address, &peer->udp_address.sin_addr);
  peer->tcp_address = peer->udp_address;
  peer->tcp_address.sin_port = htons(TCP_PORT);
  if (p->least_timeout_ms > 0 && !add_route(peer, interface, p->least_timeout_ms)) p->send_errors++;
  p->peer_count++;
}

// The words that src/lab/guest-command-line.ts writes; the init script has used the others.
void configure(struct probe *p, char *command_line) {
  for (char *word = strtok(command_line, " \n"); word != NULL; word = strtok(NULL, " \n")) {
    if (strncmp(word, "sg.name=", 8) == 0) p->name = word + 8;
    if (strncmp(word, "sg.id=", 6) == 0) p->id = (unsigned)atoi(word + 6);
    if (strncmp(word, "sg.rto=", 7) == 0) p->least_timeout_ms = (unsigned)atoi(word + 7);
    if (strncmp(word, "sg.peer=", 8) == 0) add_peer(p, word + 8);
    if (strncmp(word, "sg.report=", 10) == 0) p->report_interval_ns = atoi(word + 10) * 1000000ll;
    if (strncmp(word, "sg.rx=", 6) == 0) {
      p->receives_tcp = sscanf(word + 6, "%d,%d", &p->window_bytes, &p->segment_bytes) == 2;
    }
  }
}

static bool reached(const struct peer *peer) {
  return peer->hears_us && peer->counted_heard && (!probe.receives_tcp || peer->in_position > 8);
}

static size_t peers_reached(void) {
  size_t n = 0;
  for (size_t i = 0; i < probe.peer_count; i++) n += reached(&probe.peers[i]);
  return n;
}

static void say(const char *line, int length) {
  if (write(STDOUT_FILENO, line, (size_t)length) != length) probe.send_errors++;
}

static void report(int64_t now_ns, bool ready) {
  struct judge sum = {0};
  uint64_t sent = 0;
  for (size_t i = 0; i < probe.peer_count; i++) {
    const struct peer *peer = &probe.peers[i];
    sent += peer->sent;
    sum.received += peer->judge.received;
    sum.lost += peer->judge.lost;
    sum.duplicated += peer->judge.duplicated;
    sum.reordered += peer->judge.reordered;
  }
  static char streams[MAX_PEERS * STREAM_BYTES], line[1024 + sizeof streams];
  describe_streams(&probe, streams, sizeof streams);
  int length = snprintf(
      line, sizeof line,
      "{\"t\":\"report\",\"id\":\"%s\",\"ready\":%s,\"uptimeNs\":%" PRId64 ",\"sent\":%" PRIu64 ",\"received\":%" PRIu64
      ",\"lost\":%" PRIu64 ",\"duplicated\":%" PRIu64 ",\"reordered\":%" PRIu64 ",\"corrupted\":%" PRIu64
      ",\"sendErrors\":%" PRIu64 ",\"tcpBytes\":%" PRIu64 ",\"tcpMismatches\":%" PRIu64
      ",\"tcpRetransmissions\":%" PRIu64 ",\"tcpTimeouts\":%" PRIu64 ",\"tcpFailures\":%" PRIu64 ",\"largestGapNs\":%" PRId64 ",\"gapNs\":%" PRId64
      ",\"clockJumpNs\":%" PRId64 ",\"tscJumpNs\":%" PRId64 ",\"peers\":%zu,\"peersReached\":%zu,\"streams\":[%s]}\n",
      probe.name, ready ? "true" : "false", now_ns, sent, sum.received, sum.lost, sum.duplicated, sum.reordered,
      probe.corrupted, probe.send_errors, probe.tcp_bytes, probe.tcp_mismatches, retransmissions(&probe),
      retransmission_timeouts(), probe.tcp_failures, clocks.largest_gap_ns, clocks.second_gap_ns, clocks.jump_ns, clocks.tsc_jump_ns,
      probe.peer_count, peers_reached(), streams);
  say(line, length);
  clocks.second_gap_ns = 0;
}

static void say_state(const char *state) {
  char line[160];
  say(line, snprintf(line, sizeof line, "{\"t\":\"%s\",\"id\":\"%s\"}\n", state, probe.name));
}

// The clocks are judged from the moment on at which the guest is ready: nothing of the boot counts.
static void tick(int udp, int epoll) {
  static int64_t last_ns, next_report_ns;
  static bool ready;
  int64_t now_ns = clock_ns(CLOCK_MONOTONIC);
  observe_clocks(&clocks);
  for (size_t i = 0; i < probe.peer_count; i++) {
    send_datagram(&probe, udp, &probe.peers[i], now_ns);
    advance_stream(&probe, &probe.peers[i], epoll, now_ns, last_ns == 0 ? 0 : now_ns - last_ns);
  }
  last_ns = now_ns;
  if (!ready && peers_reached() == probe.peer_count) {
    ready = true;
    reset_clocks(&clocks);
    say_state("ready");
    next_report_ns = now_ns;
  }
  if (now_ns >= next_report_ns) {
    report(now_ns, ready);
    next_report_ns = now_ns + probe.report_interval_ns;
  }
}

static int start_timer(void) {
  int64_t interval_ns = LARGEST_TICK_NS;
  for (size_t i = 0; i < probe.peer_count; i++) {
    struct peer *peer = &probe.peers[i];
    if (peer->udp_interval_ns < interval_ns) interval_ns = peer->udp_interval_ns;
    // The peers are served in turn, not all in one tick.
    peer->next_due_ns = clock_ns(CLOCK_MONOTONIC) + peer->udp_interval_ns * (int64_t)i / (int64_t)probe.peer_count;
  }
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  struct itimerspec period = {{0, interval_ns}, {0, interval_ns}};
  timerfd_settime(fd, 0, &period, NULL);
  return fd;
}

static void serve(int fd, int epoll) {
  for (size_t i = 0; i < probe.peer_count; i++) {
    if (probe.peers[i].out_fd == fd) {
      stream_writable(&probe, &probe.peers[i], epoll);
      return;
    }
  }
  receive_stream(&probe, fd, epoll);
}

static void dispatch(int fd, int udp, int listener, int epoll) {
  if (fd == udp) receive_datagrams(&probe, udp);
  else if (fd == listener) accept_streams(&probe, listener, epoll);
  else serve(fd, epoll);
}

// A wake-up costs a TCG guest more than a frame does, so sockets are served by the clock as well: what comes in
// between two ticks waits. Only where a window bounds what is in flight it must be taken at once, to be reopened.
static void run(int timer, int udp, int listener) {
  bool prompt = probe.window_bytes > 0;
  int fixed[] = {udp, listener, timer};
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < (prompt ? 3 : 2); i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fixed[i]};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fixed[i], &event);
  }
  for (bool ticked = false;;) {
    struct epoll_event events[32];
    uint64_t expirations;
    int n = epoll_wait(epoll, events, 32, prompt ? -1 : 0);
    for (int i = 0; i < n; i++) {
      if (events[i].data.fd == timer) ticked = true;
      else dispatch(events[i].data.fd, udp, listener, epoll);
    }
    if (n == 32 || (prompt && !ticked)) continue;
    if (read(timer, &expirations, sizeof expirations) > 0) tick(udp, epoll);
    ticked = false;
  }
}

int main(void) {
  static char command_line[4096];
  int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
  struct termios terminal;
  if (fd < 0 || read(fd, command_line, sizeof command_line - 1) <= 0) return 1;
  close(fd);
  if (tcgetattr(STDOUT_FILENO, &terminal) == 0) {
    cfmakeraw(&terminal);
    tcsetattr(STDOUT_FILENO, TCSANOW, &terminal);
  }
  configure(&probe, command_line);
  if (probe.name == NULL) probe.name = "unnamed";
  int udp = open_udp(), listener = open_listener(&probe);
  if (udp < 0 || listener < 0) {
    perror("probe: cannot open its ports");
    return 1;
  }
  say_state("booted");
  keep_disks(probe.name);
  run(start_timer(), udp, listener);
}
