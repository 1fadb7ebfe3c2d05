// A guest's init: loads the modules that its archive names, and tells on its second serial line the number of each
// frame that it receives (numberedFrame in test/network/network-lab.ts), in order.
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

enum { ETHER_TYPE = 0x88b6, NUMBER_AT = 14, BUFFER_BYTES = 16 << 20 };

static void die(const char *what) {
  perror(what);
  for (;;) pause();
}

static void load_modules(void) {
  FILE *order = fopen("/modules/order", "r");
  char name[64], path[96];
  while (order && fscanf(order, "%63s", name) == 1) {
    snprintf(path, sizeof path, "/modules/%s", name);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) != 0) perror(path);
    close(fd);
  }
}

int main(void) {
  mount("devtmpfs", "/dev", "devtmpfs", 0, "");
  load_modules();
  int tell = open("/dev/ttyS1", O_WRONLY | O_NOCTTY);
  if (tell < 0) die("ttyS1");
  struct termios line;
  tcgetattr(tell, &line);
  cfmakeraw(&line);
  cfsetspeed(&line, B115200);
  tcsetattr(tell, TCSANOW, &line);

  int in = socket(AF_PACKET, SOCK_RAW, htons(ETHER_TYPE));
  int buffer = BUFFER_BYTES;
  if (in < 0 || setsockopt(in, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) != 0) die("socket");
  struct ifreq nic = {.ifr_name = "eth0"};
  while (ioctl(in, SIOCGIFFLAGS, &nic) != 0) usleep(10000);
  nic.ifr_flags |= IFF_UP | IFF_PROMISC;
  if (ioctl(in, SIOCSIFFLAGS, &nic) != 0) die("SIOCSIFFLAGS");
  do {
    usleep(10000);
    ioctl(in, SIOCGIFFLAGS, &nic);
  } while (!(nic.ifr_flags & IFF_RUNNING));
  dprintf(tell, "ready\n");
  for (;;) {
    unsigned char frame[2048];
    if (recv(in, frame, sizeof frame, 0) < NUMBER_AT + 4) continue;
    unsigned number;
    memcpy(&number, frame + NUMBER_AT, sizeof number);
    dprintf(tell, "%u\n", ntohl(number));
  }
}
