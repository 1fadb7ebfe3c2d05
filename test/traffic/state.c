// An endpoint's state in a file, of this machine's byte order and this program's build: a magic number, what it has
// sent, what it has received, and a hash of all that.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traffic.h"

static const char magic[8] = "SGTRAF01";

struct head {
  char magic[8];
  int64_t virtual_ns;
  uint32_t flows, tallies;
  bool mute;
  struct counters counters;
};

static size_t encode(const struct endpoint *endpoint, char **bytes) {
  size_t length = 0;
  FILE *out = open_memstream(bytes, &length);
  if (!out) fail("out of memory");
  struct head head;
  memset(&head, 0, sizeof head);
  memcpy(head.magic, magic, sizeof magic);
  head.virtual_ns = virtual_ns(endpoint);
  head.flows = endpoint->flows;
  head.mute = endpoint->mute;
  head.counters = endpoint->counters;
  for (uint32_t id = 0; id < FLOWS_MAX; id++) head.tallies += endpoint->tally[id] != NULL;
  fwrite(&head, sizeof head, 1, out);
  fwrite(endpoint->flow, sizeof *endpoint->flow, endpoint->flows, out);
  for (uint32_t id = 0; id < FLOWS_MAX; id++) {
    if (!endpoint->tally[id]) continue;
    fwrite(&id, sizeof id, 1, out);
    fwrite(endpoint->tally[id], sizeof **endpoint->tally, 1, out);
  }
  if (fclose(out) != 0) fail("out of memory");
  return length;
}

bool save_state(struct endpoint *endpoint, const char *path) {
  // What a packet socket holds has reached the station; what a tap holds has not.
  while (endpoint->port.kind == PORT_PACKET && receive_some(endpoint, endpoint->queue[0])) continue;
  char *bytes = NULL;
  size_t length = encode(endpoint, &bytes);
  uint64_t hash = hash_bytes(0, (uint8_t *)bytes, length);
  FILE *out = fopen(path, "we");
  bool done = out && fwrite(bytes, 1, length, out) == length && fwrite(&hash, sizeof hash, 1, out) == 1;
  if (out && fclose(out) != 0) done = false;
  free(bytes);
  return done;
}

static void decode(struct endpoint *endpoint, FILE *in) {
  struct head head;
  bool good = fread(&head, sizeof head, 1, in) == 1 && memcmp(head.magic, magic, sizeof magic) == 0 && head.flows <= ENDPOINT_FLOWS_MAX &&
              fread(endpoint->flow, sizeof *endpoint->flow, head.flows, in) == head.flows;
  for (uint32_t i = 0; good && i < head.tallies; i++) {
    uint32_t id = 0;
    struct tally *tally = malloc(sizeof *tally);
    good = tally && fread(&id, sizeof id, 1, in) == 1 && id < FLOWS_MAX && fread(tally, sizeof *tally, 1, in) == 1;
    if (good) endpoint->tally[id] = tally;
  }
  if (!good) fail("%s: no state of an endpoint", endpoint->restore);
  endpoint->stopped_ns = head.virtual_ns;
  endpoint->flows = head.flows;
  endpoint->mute = head.mute;
  endpoint->counters = head.counters;
}

bool load_state(struct endpoint *endpoint, const char *path) {
  FILE *file = fopen(path, "re");
  if (!file) return false;
  fseek(file, 0, SEEK_END);
  long length = ftell(file) - (long)sizeof(uint64_t);
  rewind(file);
  uint64_t hash = 0;
  uint8_t *bytes = length > 0 ? malloc((size_t)length) : NULL;
  bool whole = bytes && fread(bytes, 1, (size_t)length, file) == (size_t)length && fread(&hash, sizeof hash, 1, file) == 1;
  if (!whole || hash != hash_bytes(0, bytes, (size_t)length)) fail("%s: damaged", path);
  rewind(file);
  decode(endpoint, file);
  fclose(file);
  free(bytes);
  return true;
}
