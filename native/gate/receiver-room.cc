// Whether whoever reads a device by a packet socket has room for more. Open vSwitch's userspace datapath does; a
// frame that finds a full socket is lost without a word, and one that we let in weighs a whole page there.
#include <cstdio>

#include "gate/edge.h"

namespace staghorn {

namespace {

constexpr unsigned kRoomBytes = 64 * 1024;  // of net.core.rmem_default, 208 KiB

}  // namespace

bool ReceiversHaveRoom(int ifindex) {
  FILE *sockets = fopen("/proc/thread-self/net/packet", "re");
  if (!sockets) return true;
  char line[256];
  bool room = true;
  // sk RefCnt Type Proto Iface R Rmem User Inode (net/packet/af_packet.c, packet_seq_show)
  while (room && fgets(line, sizeof line, sockets)) {
    int bound;
    unsigned queued;
    if (sscanf(line, "%*s %*d %*d %*x %d %*d %u", &bound, &queued) == 2) room = bound != ifindex || queued < kRoomBytes;
  }
  fclose(sockets);
  return room;
}

}  // namespace staghorn
