// A route to each peer that says how long a retransmission timer takes at least. With the kernel's own 200 ms, a machine
// that is late looks like a network that lost something; what really was lost is sent again either way.
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"

struct request {
  struct nlmsghdr header;
  struct rtmsg route;
  char attributes[128];
};

static struct rtattr *add(struct request *request, unsigned short type, const void *data, size_t length) {
  struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
  attribute->rta_type = type;
  attribute->rta_len = (unsigned short)RTA_LENGTH(length);
  if (length > 0) memcpy(RTA_DATA(attribute), data, length);
  request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
  return attribute;
}

// The kernel heeds the metric only if it is locked (tcp_rto_min in include/net/tcp.h).
static void add_metrics(struct request *request, uint32_t least_ms) {
  uint32_t lock = 1u << RTAX_RTO_MIN;
  struct rtattr *metrics = add(request, RTA_METRICS, NULL, 0);
  add(request, RTAX_LOCK, &lock, sizeof lock);
  add(request, RTAX_RTO_MIN, &least_ms, sizeof least_ms);
  metrics->rta_len = (unsigned short)((char *)request + request->header.nlmsg_len - (char *)metrics);
}

bool add_route(const struct peer *peer, const char *interface, uint32_t least_timeout_ms) {
  struct {
    struct nlmsghdr header;
    struct nlmsgerr error;
  } answer = {0};
  uint32_t index = if_nametoindex(interface);
  struct request request = {
      .header = {NLMSG_LENGTH(sizeof(struct rtmsg)), RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK, 1, 0},
      .route = {.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC,
                .rtm_scope = RT_SCOPE_LINK, .rtm_type = RTN_UNICAST},
  };
  add(&request, RTA_DST, &peer->udp_address.sin_addr, sizeof peer->udp_address.sin_addr);
  add(&request, RTA_OIF, &index, sizeof index);
  add_metrics(&request, least_timeout_ms);
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  bool sent = send(fd, &request, request.header.nlmsg_len, 0) > 0 && recv(fd, &answer, sizeof answer, 0) > 0;
  close(fd);
  return sent && answer.error.error == 0;
}
