// The edge: frames that come in from a port that is no VM's, held at the port's receive side.
#pragma once

#include <vector>

#include "gate/bpf.h"
#include "gate/frames.h"
#include "gate/gate.h"

namespace staghorn {

enum class EdgePolicy { Hold, Drop };

// Assembled around the maps of a gate of the edge's own. Both throw SyscallError.
Descriptor LoadEdgeProgram(int state_map, int ring_map, EdgePolicy policy, uint32_t slot);
// What lets a frame in again: run on it by BPF_PROG_TEST_RUN, it tells the edge's program that the frame is ours.
Descriptor LoadAdmission(int state_map, bool probe);

// The longest frame that BPF_F_TEST_XDP_LIVE_FRAMES takes: a page without headroom, tailroom and the kernel's own
// header (net/bpf/test_run.c: struct xdp_page_head; include/linux/skbuff.h: SKB_WITH_OVERHEAD).
constexpr uint32_t kAdmittedBytesMax = 3328;

// Lets frames in as if their device had just received them. 0, or an errno.
int AdmitFrame(int admission, const GateState &state, int ifindex, const std::vector<uint8_t> &frame);

// False while a packet socket on the device is filled: then it must be given time.
bool ReceiversHaveRoom(int ifindex);

// The frames that a held one is on a wire of that MTU: checksums finished, TCP cut into segments. None: it is too
// long for the wire, and nothing says how it is to be cut.
std::vector<std::vector<uint8_t>> WireFrames(const FrameView &frame, uint32_t mtu);

}  // namespace staghorn
