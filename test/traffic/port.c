// Where an endpoint's frames go and come from: a tap, as QEMU opens one, or a packet socket on a device.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "traffic.h"

static int open_queue(const struct port_plan *plan) {
  int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) fail("/dev/net/tun: %s", strerror(errno));
  struct ifreq request = {0};
  memcpy(request.ifr_name, plan->device, IFNAMSIZ);
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  if (plan->header_bytes) request.ifr_flags |= IFF_VNET_HDR;
  if (plan->queues > 1) request.ifr_flags |= IFF_MULTI_QUEUE;
  if (ioctl(fd, TUNSETIFF, &request) < 0) fail("TUNSETIFF %s: %s", plan->device, strerror(errno));
  if (!plan->header_bytes) return fd;
  int size = (int)plan->header_bytes;
  if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0) fail("TUNSETVNETHDRSZ %s: %s", plan->device, strerror(errno));
  if (ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0) fail("TUNSETOFFLOAD %s: %s", plan->device, strerror(errno));
  return fd;
}

static int open_packet_socket(const struct port_plan *plan) {
  int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket(AF_PACKET): %s", strerror(errno));
  int on = 1, buffer_bytes = 64 << 20;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer_bytes, sizeof buffer_bytes);
  if (setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof on) < 0) fail("PACKET_AUXDATA: %s", strerror(errno));
  if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) < 0) fail("PACKET_IGNORE_OUTGOING: %s", strerror(errno));
  struct sockaddr_ll place = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
  place.sll_ifindex = (int)if_nametoindex(plan->device);
  struct packet_mreq promiscuous = {.mr_ifindex = place.sll_ifindex, .mr_type = PACKET_MR_PROMISC};
  if (place.sll_ifindex == 0 || bind(fd, (struct sockaddr *)&place, sizeof place) < 0) fail("bind %s: %s", plan->device, strerror(errno));
  if (setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promiscuous, sizeof promiscuous) < 0) fail("promiscuous: %s", strerror(errno));
  return fd;
}

void open_port(const struct port_plan *plan, int queue[QUEUES_MAX]) {
  int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (plan->netns[0]) {
    int there = open(plan->netns, O_RDONLY | O_CLOEXEC);
    if (there < 0 || setns(there, CLONE_NEWNET) < 0) fail("%s: %s", plan->netns, strerror(errno));
    close(there);
  }
  for (uint32_t i = 0; i < plan->queues; i++) {
    queue[i] = plan->kind == PORT_TAP ? open_queue(plan) : open_packet_socket(plan);
  }
  if (home < 0 || setns(home, CLONE_NEWNET) < 0) fail("the way back: %s", strerror(errno));
  close(home);
}

static size_t receive_from_tap(const struct port_plan *plan, int queue, uint8_t *buffer, uint8_t **frame, bool *unsegmented) {
  ssize_t got = read(queue, buffer, BUFFER_BYTES);
  if (got <= (ssize_t)plan->header_bytes) return 0;
  *unsegmented = plan->header_bytes && ((struct virtio_net_hdr *)buffer)->gso_type != VIRTIO_NET_HDR_GSO_NONE;
  *frame = buffer + plan->header_bytes;
  return (size_t)got - plan->header_bytes;
}

// The kernel takes the outer tag out of a frame and tells of it apart (packet(7), PACKET_AUXDATA).
static size_t receive_from_socket(int queue, uint8_t *buffer, uint8_t **frame) {
  enum { MACS = 2 * ETH_ALEN, TAG = 4 };
  char control[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
  struct iovec room = {buffer + TAG, BUFFER_BYTES - TAG};
  struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  ssize_t got = recvmsg(queue, &message, MSG_DONTWAIT);
  if (got <= MACS) return 0;
  *frame = buffer + TAG;
  struct cmsghdr *part = CMSG_FIRSTHDR(&message);
  if (!part || part->cmsg_level != SOL_PACKET || part->cmsg_type != PACKET_AUXDATA) return (size_t)got;
  struct tpacket_auxdata about;
  memcpy(&about, CMSG_DATA(part), sizeof about);
  if (!(about.tp_status & TP_STATUS_VLAN_VALID)) return (size_t)got;
  uint16_t type = about.tp_status & TP_STATUS_VLAN_TPID_VALID ? about.tp_vlan_tpid : 0x8100;
  uint16_t tag[2] = {htons(type), htons(about.tp_vlan_tci)};
  memmove(buffer, buffer + TAG, MACS);
  memcpy(buffer + MACS, tag, TAG);
  *frame = buffer;
  return (size_t)got + TAG;
}

size_t receive_frame(const struct port_plan *plan, int queue, uint8_t *buffer, uint8_t **frame, bool *unsegmented) {
  *unsegmented = false;
  if (plan->kind == PORT_PACKET) return receive_from_socket(queue, buffer, frame);
  return receive_from_tap(plan, queue, buffer, frame, unsegmented);
}
