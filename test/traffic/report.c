// What an endpoint has sent and received, as one line of JSON.
#include <inttypes.h>

#include "traffic.h"

static void write_tags(FILE *out, uint32_t tags, const struct tag *tag) {
  fputs(",\"tags\":[", out);
  for (uint32_t i = 0; i < tags; i++) fprintf(out, "%s\"%04x:%u\"", i ? "," : "", tag[i].type, tag[i].tci & 0xfffu);
  fputc(']', out);
}

static void write_flow(FILE *out, const struct flow *flow) {
  fprintf(out, "{\"flow\":%u,\"frames\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"skipped\":%" PRIu64 "}", flow->id, flow->next,
          flow->refused, flow->skipped);
}

static void write_tally(FILE *out, uint32_t id, const struct tally *tally) {
  fprintf(out, "{\"flow\":%u,\"frames\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"expected\":%" PRIu64, id, tally->frames, tally->bytes,
          tally->expected);
  fprintf(out, ",\"duplicated\":%" PRIu64 ",\"reordered\":%" PRIu64 ",\"stale\":%" PRIu64 ",\"retagged\":%" PRIu64, tally->duplicated,
          tally->reordered, tally->stale, tally->retagged);
  fprintf(out, ",\"unsegmented\":%" PRIu64, tally->unsegmented);
  write_tags(out, tally->tags, tally->tag);
  fprintf(out, ",\"latencyNs\":{\"min\":%" PRId64 ",\"median\":%" PRId64 ",\"p99\":%" PRId64 ",\"max\":%" PRId64 "}}",
          tally->latency_min_ns, latency_at(tally, 0.5), latency_at(tally, 0.99), tally->latency_max_ns);
}

void write_report(FILE *out, const struct endpoint *endpoint) {
  const struct counters *counters = &endpoint->counters;
  fprintf(out, "{\"name\":\"%s\",\"running\":%s,\"virtualNs\":%" PRId64, endpoint->name, endpoint->running ? "true" : "false",
          virtual_ns(endpoint));
  fprintf(out, ",\"stray\":%" PRIu64 ",\"foreign\":%" PRIu64 ",\"corrupted\":%" PRIu64 ",\"padded\":%" PRIu64, counters->stray,
          counters->foreign, counters->corrupted, counters->padded);
  fputs(",\"sent\":[", out);
  for (uint32_t i = 0; i < endpoint->flows; i++) {
    if (i) fputc(',', out);
    write_flow(out, &endpoint->flow[i]);
  }
  fputs("],\"received\":[", out);
  bool first = true;
  for (uint32_t id = 0; id < FLOWS_MAX; id++) {
    if (!endpoint->tally[id]) continue;
    if (!first) fputc(',', out);
    first = false;
    write_tally(out, id, endpoint->tally[id]);
  }
  fputs("]}\n", out);
}
