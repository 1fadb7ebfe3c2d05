// A traffic generator: `traffic CONFIG` plays the endpoints of a configuration (config.c) until it is killed, or its
// standard input ends.
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "traffic.h"

enum source { SOURCE_STDIN, SOURCE_LISTENER, SOURCE_CLIENT, SOURCE_TIMER, SOURCE_QUEUE };
enum { EVENTS_MAX = 64 };

static int loop;
static struct endpoint *endpoints;
static uint32_t endpoint_count;

int64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000ll + now.tv_nsec;
}

void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("traffic: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  exit(1);
}

// An event's data: 16 bits each for the kind of source, its place at the endpoint, and the endpoint.
static void watch(int operation, int fd, uint32_t events, enum source source, uint32_t place, const struct endpoint *endpoint) {
  uint64_t number = endpoint ? (uint64_t)(endpoint - endpoints) : 0;
  struct epoll_event event = {.events = events, .data.u64 = (uint64_t)source << 32 | (uint64_t)place << 16 | number};
  if (epoll_ctl(loop, operation, fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

void watch_queues(struct endpoint *endpoint, bool on) {
  for (uint32_t i = 0; i < endpoint->queues; i++) watch(EPOLL_CTL_MOD, endpoint->queue[i], on ? EPOLLIN : 0, SOURCE_QUEUE, i, endpoint);
}

static void open_endpoint(struct endpoint *endpoint) {
  open_port(&endpoint->port, endpoint->queue);
  endpoint->queues = endpoint->port.queues;
  if (*endpoint->restore && !load_state(endpoint, endpoint->restore)) fail("%s: %s", endpoint->restore, strerror(errno));
  endpoint->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  open_control(endpoint);
  watch(EPOLL_CTL_ADD, endpoint->listener, EPOLLIN, SOURCE_LISTENER, 0, endpoint);
  watch(EPOLL_CTL_ADD, endpoint->timer, EPOLLIN, SOURCE_TIMER, 0, endpoint);
  for (uint32_t i = 0; i < endpoint->queues; i++) watch(EPOLL_CTL_ADD, endpoint->queue[i], 0, SOURCE_QUEUE, i, endpoint);
}

static void handle_control(enum source source, struct endpoint *endpoint, uint32_t place) {
  if (source == SOURCE_LISTENER) {
    int client = accept_client(endpoint);
    if (client >= 0) watch(EPOLL_CTL_ADD, endpoint->client[client], EPOLLIN, SOURCE_CLIENT, (uint32_t)client, endpoint);
  } else if (source == SOURCE_CLIENT) {
    serve_client(endpoint, (int)place);
  } else if (source == SOURCE_STDIN) {
    exit(0);
  }
}

static void handle_traffic(enum source source, struct endpoint *endpoint, uint32_t place, uint32_t events) {
  if (source == SOURCE_QUEUE && (events & (EPOLLERR | EPOLLHUP))) fail("%s is gone", endpoint->port.device);
  // It may have been stopped by an event of the same look.
  if (source == SOURCE_TIMER) send_due(endpoint);
  if (source == SOURCE_QUEUE && endpoint->running) receive_some(endpoint, endpoint->queue[place]);
}

// Commands come first: what is not yet sent or read when "stop" is there stays so.
static void run(void) {
  struct epoll_event events[EVENTS_MAX];
  for (;;) {
    int count = epoll_wait(loop, events, EVENTS_MAX, -1);
    if (count < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
    for (int pass = 0; pass < 2; pass++) {
      for (int i = 0; i < count; i++) {
        uint64_t data = events[i].data.u64;
        struct endpoint *endpoint = &endpoints[data & 0xffff];
        uint32_t place = data >> 16 & 0xffff;
        if (pass == 0) handle_control(data >> 32, endpoint, place);
        else handle_traffic(data >> 32, endpoint, place, events[i].events);
      }
    }
  }
}

int main(int count, char **arguments) {
  if (count != 2) fail("usage: traffic CONFIG");
  loop = epoll_create1(EPOLL_CLOEXEC);
  endpoint_count = read_config(arguments[1], &endpoints);
  for (uint32_t i = 0; i < endpoint_count; i++) open_endpoint(&endpoints[i]);
  watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN, SOURCE_STDIN, 0, NULL);
  puts("ready");
  fflush(stdout);
  run();
}
