// An endpoint as a VM: it sends what is due on its virtual clock, and that clock runs only while it does.
#include <errno.h>
#include <math.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "traffic.h"

enum {
  BURST_MAX = 32,             // frames of a flow at once, and as many that it may be late by
  RECEIVE_AT_ONCE = 64,       // then the control sockets are looked at again
};
static const double ns_a_second = 1e9;

static uint8_t buffer[BUFFER_BYTES];

int64_t virtual_ns(const struct endpoint *endpoint) {
  return endpoint->running ? monotonic_ns() - endpoint->base_ns : endpoint->stopped_ns;
}

static int64_t interval_ns(struct flow *flow) {
  double mean = ns_a_second / flow->per_second;
  if (!flow->poisson) return (int64_t)mean;
  double uniform = (double)(next_random(&flow->random) >> 11) / 0x1p53;
  return (int64_t)(-log1p(-uniform) * mean);
}

// A guest that had no processor for long does not catch up on all that it might have sent.
static void forgive(struct flow *flow, int64_t now_ns) {
  double interval = ns_a_second / flow->per_second;
  double late = (double)(now_ns - flow->due_ns) / interval - BURST_MAX;
  if (late < 1) return;
  flow->skipped += (uint64_t)late;
  flow->due_ns += (int64_t)(late * interval);
}

static void send_flow(struct endpoint *endpoint, struct flow *flow, int64_t now_ns) {
  forgive(flow, now_ns);
  for (int burst = 0; burst < BURST_MAX && flow->due_ns <= now_ns; burst++) {
    size_t length = build_frame(buffer, endpoint->port.header_bytes, endpoint->mac, flow, virtual_ns(endpoint));
    ssize_t sent = write(endpoint->queue[flow->id % endpoint->queues], buffer, length);
    if (sent < 0) flow->refused++;
    else flow->next++;
    flow->due_ns += interval_ns(flow);
  }
}

void send_due(struct endpoint *endpoint) {
  uint64_t expirations;
  if (read(endpoint->timer, &expirations, sizeof expirations) < 0 && errno != EAGAIN) fail("timerfd");
  if (!endpoint->running || endpoint->mute) return;
  int64_t now_ns = virtual_ns(endpoint);
  for (uint32_t i = 0; i < endpoint->flows; i++) send_flow(endpoint, &endpoint->flow[i], now_ns);
  arm_timer(endpoint);
}

// Wakes at the end of the batch in which the next frame is due.
void arm_timer(struct endpoint *endpoint) {
  int64_t due_ns = INT64_MAX;
  for (uint32_t i = 0; i < endpoint->flows; i++) {
    if (endpoint->flow[i].due_ns < due_ns) due_ns = endpoint->flow[i].due_ns;
  }
  struct itimerspec when = {0};
  if (endpoint->running && !endpoint->mute && endpoint->flows > 0) {
    int64_t at_ns = (due_ns / endpoint->batch_ns + 1) * endpoint->batch_ns + endpoint->base_ns;
    when.it_value.tv_sec = at_ns / 1000000000;
    when.it_value.tv_nsec = at_ns % 1000000000;
  }
  timerfd_settime(endpoint->timer, TFD_TIMER_ABSTIME, &when, NULL);
}

bool receive_some(struct endpoint *endpoint, int queue) {
  for (int i = 0; i < RECEIVE_AT_ONCE; i++) {
    uint8_t *frame;
    bool unsegmented;
    size_t length = receive_frame(&endpoint->port, queue, buffer, &frame, &unsegmented);
    if (length == 0) return false;
    take_frame(endpoint, frame, length, unsegmented);
  }
  return true;
}

void stop_endpoint(struct endpoint *endpoint) {
  if (!endpoint->running) return;
  endpoint->stopped_ns = virtual_ns(endpoint);
  endpoint->running = false;
  arm_timer(endpoint);
  watch_queues(endpoint, false);
}

void continue_endpoint(struct endpoint *endpoint) {
  if (endpoint->running) return;
  endpoint->base_ns = monotonic_ns() - endpoint->stopped_ns;
  endpoint->running = true;
  arm_timer(endpoint);
  watch_queues(endpoint, true);
}
