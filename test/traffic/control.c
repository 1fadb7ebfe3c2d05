// What an endpoint is told over its Unix socket, a line each, and answers, a line each:
//
//   hello      pid, and the descriptors of its queues
//   stop       stands still at once             "stopped MONOTONIC_NS VIRTUAL_NS"
//   cont       goes on                          "running MONOTONIC_NS VIRTUAL_NS"
//   mute       sends nothing more, and goes on receiving; unmute
//   save FILE  the whole state; only while it stands still
//   report     what it has sent and received
//
// An endpoint starts standing still.
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "traffic.h"

void open_control(struct endpoint *endpoint) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, endpoint->control);
  endpoint->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  for (int i = 0; i < CLIENTS_MAX; i++) endpoint->client[i] = -1;
  unlink(endpoint->control);
  if (bind(endpoint->listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(endpoint->listener, CLIENTS_MAX) < 0)
    fail("%s: %s", endpoint->control, strerror(errno));
}

int accept_client(struct endpoint *endpoint) {
  int fd = accept4(endpoint->listener, NULL, NULL, SOCK_CLOEXEC);
  if (fd < 0) return -1;
  for (int i = 0; i < CLIENTS_MAX; i++) {
    if (endpoint->client[i] >= 0) continue;
    endpoint->client[i] = fd;
    endpoint->line_bytes[i] = 0;
    return i;
  }
  close(fd);
  return -1;
}

static void answer(int fd, const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return;  // the next read tells that it is gone
    bytes += sent;
    length -= (size_t)sent;
  }
}

static void write_hello(FILE *out, const struct endpoint *endpoint) {
  fprintf(out, "{\"pid\":%d,\"queueFds\":[", getpid());
  for (uint32_t i = 0; i < endpoint->queues; i++) fprintf(out, "%s%d", i ? "," : "", endpoint->queue[i]);
  fputs("]}\n", out);
}

// When it last stood still or went on: the same virtual time.
static void write_instant(FILE *out, const struct endpoint *endpoint) {
  const char *state = endpoint->running ? "running" : "stopped";
  fprintf(out, "%s %" PRId64 " %" PRId64 "\n", state, endpoint->base_ns + endpoint->stopped_ns, endpoint->stopped_ns);
}

static void set_mute(struct endpoint *endpoint, bool mute) {
  // Nothing was due meanwhile.
  int64_t now_ns = virtual_ns(endpoint);
  for (uint32_t i = 0; i < endpoint->flows; i++) {
    if (endpoint->flow[i].due_ns < now_ns) endpoint->flow[i].due_ns = now_ns;
  }
  endpoint->mute = mute;
  arm_timer(endpoint);
}

static void save(FILE *out, struct endpoint *endpoint, const char *path) {
  if (endpoint->running) fputs("error it runs\n", out);
  else if (!save_state(endpoint, path)) fprintf(out, "error %s: %s\n", path, strerror(errno));
  else fputs("saved\n", out);
}

static void carry_out(FILE *out, struct endpoint *endpoint, const char *line) {
  if (!strcmp(line, "stop")) stop_endpoint(endpoint), write_instant(out, endpoint);
  else if (!strcmp(line, "cont")) continue_endpoint(endpoint), write_instant(out, endpoint);
  else if (!strcmp(line, "mute")) set_mute(endpoint, true), fputs("mute\n", out);
  else if (!strcmp(line, "unmute")) set_mute(endpoint, false), fputs("loud\n", out);
  else if (!strcmp(line, "hello")) write_hello(out, endpoint);
  else if (!strcmp(line, "report")) write_report(out, endpoint);
  else if (!strncmp(line, "save ", 5)) save(out, endpoint, line + 5);
  else fprintf(out, "error \"%s\" is no command\n", line);
}

static void carry_out_and_answer(struct endpoint *endpoint, int client, const char *line) {
  char *bytes = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&bytes, &length);
  if (!out) fail("out of memory");
  carry_out(out, endpoint, line);
  fclose(out);
  answer(endpoint->client[client], bytes, length);
  free(bytes);
}

bool serve_client(struct endpoint *endpoint, int client) {
  char *line = endpoint->line[client];
  size_t *have = &endpoint->line_bytes[client];
  ssize_t got = recv(endpoint->client[client], line + *have, sizeof endpoint->line[client] - 1 - *have, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) {
    close(endpoint->client[client]);
    endpoint->client[client] = -1;
    return false;
  }
  *have += (size_t)got;
  line[*have] = 0;
  for (char *end; (end = strchr(line, '\n')); memmove(line, end + 1, *have + 1)) {
    *end = 0;
    carry_out_and_answer(endpoint, client, line);
    *have -= (size_t)(end + 1 - line);
  }
  return true;
}
