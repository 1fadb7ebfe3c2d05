// Plays the receiving half of a guest whose tap (descriptor 3) is read by vhost-net in the kernel: sets up one virtqueue
// (drivers/vhost/net.c, virtio 1.2 section 2.7 "Split Virtqueues") and writes every frame to standard output, with
// its length (u32) and segment size (u32) in front.
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum { QUEUE = 256, BUFFER_BYTES = 70144, HEADER_BYTES = 10, RX = 0 };

struct arena {
  struct vring_desc descriptors[QUEUE];
  uint8_t available[sizeof(struct vring_avail) + 2 * QUEUE + 2];
  uint8_t used[sizeof(struct vring_used) + sizeof(struct vring_used_elem) * QUEUE + 2] __attribute__((aligned(4096)));
  uint8_t buffers[QUEUE][BUFFER_BYTES] __attribute__((aligned(4096)));
};

static struct arena *arena;
static int kick, call;

static void check(int result, const char *what) {
  if (result >= 0) return;
  perror(what);
  exit(1);
}

static struct vring_avail *available(void) { return (struct vring_avail *)arena->available; }
static struct vring_used *used(void) { return (struct vring_used *)arena->used; }

static void offer(uint16_t descriptor) {
  struct vring_avail *ring = available();
  ring->ring[ring->idx % QUEUE] = descriptor;
  __atomic_store_n(&ring->idx, (uint16_t)(ring->idx + 1), __ATOMIC_RELEASE);
}

static void share_memory(int vhost) {
  struct vhost_memory *table = calloc(1, sizeof *table + sizeof *table->regions);
  table->nregions = 1;
  // Guest-physical addresses are this process's own.
  table->regions[0].guest_phys_addr = table->regions[0].userspace_addr = (uintptr_t)arena;
  table->regions[0].memory_size = sizeof *arena;
  check(ioctl(vhost, VHOST_SET_MEM_TABLE, table), "VHOST_SET_MEM_TABLE");
  free(table);
}

static void start_queue(int vhost, int tap) {
  struct vhost_vring_state number = {RX, QUEUE}, base = {RX, 0};
  struct vhost_vring_addr address = {
      .index = RX,
      .desc_user_addr = (uintptr_t)arena->descriptors,
      .used_user_addr = (uintptr_t)arena->used,
      .avail_user_addr = (uintptr_t)arena->available,
  };
  struct vhost_vring_file kick_file = {RX, kick}, call_file = {RX, call}, backend = {RX, tap};
  check(ioctl(vhost, VHOST_SET_VRING_NUM, &number), "VHOST_SET_VRING_NUM");
  check(ioctl(vhost, VHOST_SET_VRING_BASE, &base), "VHOST_SET_VRING_BASE");
  check(ioctl(vhost, VHOST_SET_VRING_ADDR, &address), "VHOST_SET_VRING_ADDR");
  check(ioctl(vhost, VHOST_SET_VRING_KICK, &kick_file), "VHOST_SET_VRING_KICK");
  check(ioctl(vhost, VHOST_SET_VRING_CALL, &call_file), "VHOST_SET_VRING_CALL");
  check(ioctl(vhost, VHOST_NET_SET_BACKEND, &backend), "VHOST_NET_SET_BACKEND");
}

static void tell(const struct vring_used_elem *element) {
  const uint8_t *buffer = arena->buffers[element->id];
  struct virtio_net_hdr header;
  memcpy(&header, buffer, sizeof header);
  uint32_t prefix[2] = {element->len - HEADER_BYTES, header.gso_size};
  struct iovec parts[2] = {{prefix, sizeof prefix}, {(void *)(buffer + HEADER_BYTES), prefix[0]}};
  check((int)writev(1, parts, 2), "writev");
}

int main(void) {
  arena = mmap(NULL, sizeof *arena, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (arena == MAP_FAILED) check(-1, "mmap");
  int vhost = open("/dev/vhost-net", O_RDWR);
  check(vhost, "/dev/vhost-net");
  kick = eventfd(0, 0);
  call = eventfd(0, 0);
  uint64_t features = 0;
  check(ioctl(vhost, VHOST_SET_OWNER), "VHOST_SET_OWNER");
  check(ioctl(vhost, VHOST_SET_FEATURES, &features), "VHOST_SET_FEATURES");
  share_memory(vhost);
  for (uint16_t i = 0; i < QUEUE; i++) {
    arena->descriptors[i] = (struct vring_desc){(uintptr_t)arena->buffers[i], BUFFER_BYTES, VRING_DESC_F_WRITE, 0};
    offer(i);
  }
  start_queue(vhost, 3);
  check(eventfd_write(kick, 1), "kick");
  uint32_t ready[2] = {0, 0};
  check((int)write(1, ready, sizeof ready), "write");
  for (uint16_t seen = 0;;) {
    eventfd_t count;
    check(eventfd_read(call, &count), "call");
    for (; seen != __atomic_load_n(&used()->idx, __ATOMIC_ACQUIRE); seen++) {
      const struct vring_used_elem *element = &used()->ring[seen % QUEUE];
      tell(element);
      offer((uint16_t)element->id);
    }
    check(eventfd_write(kick, 1), "kick");
  }
}
