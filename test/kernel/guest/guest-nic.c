// Stands between a guest and its tap as QEMU does: copies frames both ways between descriptors 3 (the host's tap) and
// 4 (one whose device is in the guest's network namespace), with checksums and segmentation left to be done.
#include <errno.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char frame[70000];

static int copy(int from, int to) {
  for (;;) {
    ssize_t length = read(from, frame, sizeof frame);
    if (length < 0) return errno == EAGAIN ? 0 : -1;
    // A tap takes a frame or refuses it for good: there is nothing to wait for.
    if (write(to, frame, (size_t)length) < 0) perror("write");
  }
}

int main(void) {
  for (int tap = 3; tap <= 4; tap++) {
    if (ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) < 0) return perror("TUNSETOFFLOAD"), 1;
  }
  if (write(1, "ready\n", 6) < 0) return 1;
  struct pollfd taps[2] = {{3, POLLIN, 0}, {4, POLLIN, 0}};
  while (poll(taps, 2, -1) >= 0) {
    if (taps[0].revents && copy(3, 4) < 0) break;
    if (taps[1].revents && copy(4, 3) < 0) break;
  }
  perror("guest-nic");
  return 1;
}
