// Endpoints that send and receive numbered frames as guests would: they stop and go on when told to, their virtual
// clocks stand still meanwhile, and their whole state can be saved and started from. What they are told: control.c.
#pragma once

#include <net/ethernet.h>
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum {
  FLOWS_MAX = 4096,          // ids of flows are below this, in all processes of a network
  ENDPOINT_FLOWS_MAX = 256,  // that one endpoint sends
  QUEUES_MAX = 8,
  CLIENTS_MAX = 8,
  TAGS_MAX = 2,
  FRAME_BYTES_MAX = 65550,   // 65,535 bytes of IP and an Ethernet header
  BUFFER_BYTES = FRAME_BYTES_MAX + 64,
  WINDOW = 8192,             // sequence numbers behind the highest for which a copy is told from a late frame
  LATENCY_BUCKETS = 256,
};

struct tag {
  uint16_t type, tci;
};

// What an endpoint sends.
struct flow {
  uint32_t id;
  uint8_t to[ETH_ALEN];
  uint16_t ether_type;
  uint32_t min_bytes, max_bytes;  // without tags
  uint32_t gso_bytes;             // bytes a segment of frames that are still to be segmented; 0: whole frames
  double per_second;
  bool poisson;
  uint32_t tags;
  struct tag tag[TAGS_MAX];
  uint64_t next;  // sequence number
  int64_t due_ns; // on the virtual clock
  uint64_t random;
  uint64_t refused;  // by the device; their numbers are used again
  uint64_t skipped;  // not sent, because the process was late by more than it may catch up
};

// What an endpoint has received of a flow.
struct tally {
  uint64_t frames, bytes;
  uint64_t expected;  // the highest sequence number so far, and one
  uint64_t duplicated, reordered, stale, retagged, unsegmented;
  uint32_t tags;
  struct tag tag[TAGS_MAX];
  int64_t latency_min_ns, latency_max_ns;
  uint32_t latency[LATENCY_BUCKETS];
  uint64_t seen[WINDOW / 64];
};

struct counters {
  uint64_t stray;      // good frames for another MAC: flooded
  uint64_t foreign;    // not made by any endpoint
  uint64_t corrupted;
  uint64_t padded;     // shorter than 60 bytes when sent, and filled up with zeros on the way
};

enum port_kind { PORT_TAP, PORT_PACKET };

struct port_plan {
  enum port_kind kind;
  char device[IFNAMSIZ];
  char netns[256];  // path; empty: the process's own
  uint32_t header_bytes;  // of virtio-net in front of each frame: 0, 10 or 12
  uint32_t queues;
};

struct endpoint {
  char name[64];
  char control[108];
  char restore[256];
  uint8_t mac[ETH_ALEN];
  struct port_plan port;
  int64_t batch_ns;

  uint32_t queues;
  int queue[QUEUES_MAX];
  int timer, listener;
  int client[CLIENTS_MAX];
  char line[CLIENTS_MAX][512];
  size_t line_bytes[CLIENTS_MAX];

  bool running, mute;
  int64_t base_ns;     // CLOCK_MONOTONIC minus virtual time while it runs
  int64_t stopped_ns;  // virtual time while it stands still
  uint32_t flows;
  struct flow flow[ENDPOINT_FLOWS_MAX];
  struct tally *tally[FLOWS_MAX];
  struct counters counters;
};

int64_t monotonic_ns(void);
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

// frame.c
enum verdict { FRAME_GOOD, FRAME_FOREIGN, FRAME_CORRUPTED };
struct parsed {
  uint32_t flow, tags, length;
  uint64_t number;
  int64_t sent_ns;
  struct tag tag[TAGS_MAX];
  bool padded;
};
uint64_t next_random(uint64_t *state);
uint64_t hash_bytes(uint64_t hash, const uint8_t *bytes, size_t length);
// Makes the next frame of a flow behind a virtio-net header; returns the length of both.
size_t build_frame(uint8_t *buffer, uint32_t header_bytes, const uint8_t from[ETH_ALEN], struct flow *flow, int64_t sent_ns);
enum verdict parse_frame(const uint8_t *frame, size_t length, struct parsed *parsed);

// port.c
void open_port(const struct port_plan *plan, int queue[QUEUES_MAX]);
// Takes one frame off a queue without its virtio-net header; 0 if there is none.
size_t receive_frame(const struct port_plan *plan, int queue, uint8_t *buffer, uint8_t **frame, bool *unsegmented);

// tally.c
void take_frame(struct endpoint *endpoint, const uint8_t *frame, size_t length, bool unsegmented);
int64_t latency_at(const struct tally *tally, double share);

// endpoint.c
int64_t virtual_ns(const struct endpoint *endpoint);
void send_due(struct endpoint *endpoint);
bool receive_some(struct endpoint *endpoint, int queue);
void stop_endpoint(struct endpoint *endpoint);
void continue_endpoint(struct endpoint *endpoint);
void arm_timer(struct endpoint *endpoint);

// state.c; both end in "true", or leave errno
bool save_state(struct endpoint *endpoint, const char *path);
bool load_state(struct endpoint *endpoint, const char *path);

// report.c: one line of JSON
void write_report(FILE *out, const struct endpoint *endpoint);

// config.c
uint32_t read_config(const char *path, struct endpoint **endpoints);

// control.c
void open_control(struct endpoint *endpoint);
int accept_client(struct endpoint *endpoint);
// Carries out what a client has asked; false: it is gone.
bool serve_client(struct endpoint *endpoint, int client);

// traffic.c
void watch_queues(struct endpoint *endpoint, bool on);
