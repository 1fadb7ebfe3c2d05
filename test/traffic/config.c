// The endpoints of a process and their flows, as lines of words:
//
//   endpoint name=a control=PATH mac=02:00:00:00:00:01 tap=DEVICE|packet=DEVICE [netns=PATH] [header=0|10|12] [queues=N]
//            [batch=MICROSECONDS] [restore=FILE]
//   flow id=N to=MAC rate=PER_SECOND [poisson=0|1] [min=BYTES] [max=BYTES] [type=HEX] [tags=HEX:ID,HEX:ID] [gso=BYTES] [seed=N]
//
// Flows belong to the endpoint above them, and are not read for one that starts from a file: they are in there.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "traffic.h"

enum { LABELLED_BYTES_MIN = 46, HEADERS_BYTES = 40 };

static unsigned long number(const char *text, int base) {
  char *end;
  unsigned long value = strtoul(text, &end, base);
  if (end == text || *end) fail("\"%s\" is no number", text);
  return value;
}

static void copy(char *to, size_t room, const char *from) {
  if (strlen(from) >= room) fail("\"%s\" is too long", from);
  strcpy(to, from);
}

static void read_mac(const char *text, uint8_t mac[ETH_ALEN]) {
  int end = 0;
  sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5], &end);
  if (end == 0 || text[end]) fail("\"%s\" is no address", text);
}

static void read_tags(const char *text, struct flow *flow) {
  for (int end = 0; *text; text += end) {
    unsigned type, id;
    if (flow->tags == TAGS_MAX || sscanf(text, "%x:%u%n", &type, &id, &end) != 2) fail("\"%s\" are no tags", text);
    flow->tag[flow->tags++] = (struct tag){(uint16_t)type, (uint16_t)id};
    if (text[end] == ',') end++;
  }
}

static void read_endpoint_word(struct endpoint *endpoint, const char *key, const char *value) {
  struct port_plan *port = &endpoint->port;
  if (!strcmp(key, "name")) copy(endpoint->name, sizeof endpoint->name, value);
  else if (!strcmp(key, "control")) copy(endpoint->control, sizeof endpoint->control, value);
  else if (!strcmp(key, "restore")) copy(endpoint->restore, sizeof endpoint->restore, value);
  else if (!strcmp(key, "mac")) read_mac(value, endpoint->mac);
  else if (!strcmp(key, "netns")) copy(port->netns, sizeof port->netns, value);
  else if (!strcmp(key, "header")) port->header_bytes = (uint32_t)number(value, 10);
  else if (!strcmp(key, "queues")) port->queues = (uint32_t)number(value, 10);
  else if (!strcmp(key, "batch")) endpoint->batch_ns = (int64_t)number(value, 10) * 1000;
  else if (!strcmp(key, "tap") || !strcmp(key, "packet")) {
    port->kind = *key == 't' ? PORT_TAP : PORT_PACKET;
    copy(port->device, sizeof port->device, value);
  } else fail("an endpoint has no \"%s\"", key);
}

static void read_flow_word(struct flow *flow, const char *key, const char *value) {
  if (!strcmp(key, "id")) flow->id = (uint32_t)number(value, 10);
  else if (!strcmp(key, "to")) read_mac(value, flow->to);
  else if (!strcmp(key, "rate")) flow->per_second = strtod(value, NULL);
  else if (!strcmp(key, "poisson")) flow->poisson = number(value, 10) != 0;
  else if (!strcmp(key, "min")) flow->min_bytes = (uint32_t)number(value, 10);
  else if (!strcmp(key, "max")) flow->max_bytes = (uint32_t)number(value, 10);
  else if (!strcmp(key, "type")) flow->ether_type = (uint16_t)number(value, 16);
  else if (!strcmp(key, "tags")) read_tags(value, flow);
  else if (!strcmp(key, "gso")) flow->gso_bytes = (uint32_t)number(value, 10);
  else if (!strcmp(key, "seed")) flow->random = number(value, 10);
  else fail("a flow has no \"%s\"", key);
}

static void check_endpoint(const struct endpoint *endpoint) {
  const struct port_plan *port = &endpoint->port;
  bool header = port->header_bytes == 0 || port->header_bytes == 10 || port->header_bytes == 12;
  bool queues = port->queues >= 1 && port->queues <= (port->kind == PORT_TAP ? QUEUES_MAX : 1);
  bool fits = header && queues && (port->kind == PORT_TAP || port->header_bytes == 0);
  if (!*endpoint->name || !*endpoint->control || !*port->device || !fits || endpoint->batch_ns < 1) fail("endpoint \"%s\" is not whole", endpoint->name);
}

static void check_flow(const struct endpoint *endpoint, const struct flow *flow) {
  uint32_t least = LABELLED_BYTES_MIN + (flow->gso_bytes ? HEADERS_BYTES : 0);
  bool sizes = flow->min_bytes >= least && flow->min_bytes <= flow->max_bytes && flow->max_bytes <= FRAME_BYTES_MAX - 1;
  bool gso = flow->gso_bytes == 0 || endpoint->port.header_bytes > 0;
  if (flow->id >= FLOWS_MAX || !(flow->per_second > 0) || !sizes || !gso) fail("flow %u of \"%s\" is not possible", flow->id, endpoint->name);
}

static struct endpoint *new_endpoint(struct endpoint **endpoints, uint32_t count) {
  *endpoints = realloc(*endpoints, (count + 1) * sizeof **endpoints);
  if (!*endpoints) fail("out of memory");
  struct endpoint *made = &(*endpoints)[count];
  memset(made, 0, sizeof *made);
  made->port.queues = 1;
  made->batch_ns = 500000;
  return made;
}

static void read_line(char *line, struct endpoint **endpoints, uint32_t *count) {
  char *rest, *word = strtok_r(line, " \n", &rest);
  if (!word) return;
  bool flow_line = !strcmp(word, "flow");
  if (!flow_line && strcmp(word, "endpoint")) fail("\"%s\" is no kind of line", word);
  if (flow_line && *count == 0) fail("a flow without an endpoint");
  struct endpoint *endpoint = flow_line ? &(*endpoints)[*count - 1] : new_endpoint(endpoints, (*count)++);
  struct flow flow = {.ether_type = 0x88b6, .min_bytes = 60, .max_bytes = 60, .poisson = true};
  while ((word = strtok_r(NULL, " \n", &rest))) {
    char *value = strchr(word, '=');
    if (!value) fail("\"%s\" is no key=value", word);
    *value++ = 0;
    if (flow_line) read_flow_word(&flow, word, value);
    else read_endpoint_word(endpoint, word, value);
  }
  if (!flow_line) return check_endpoint(endpoint);
  check_flow(endpoint, &flow);
  if (*endpoint->restore) return;
  flow.due_ns = (int64_t)((double)(next_random(&flow.random) >> 11) / 0x1p53 * 1e9 / flow.per_second);
  if (endpoint->flows == ENDPOINT_FLOWS_MAX) fail("\"%s\" has too many flows", endpoint->name);
  endpoint->flow[endpoint->flows++] = flow;
}

uint32_t read_config(const char *path, struct endpoint **endpoints) {
  FILE *file = fopen(path, "re");
  if (!file) fail("%s: %s", path, strerror(errno));
  uint32_t count = 0;
  char line[2048];
  while (fgets(line, sizeof line, file)) read_line(line, endpoints, &count);
  fclose(file);
  return count;
}
