// A gate: the memory that its programs and user space share, and the programs.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "gate/bpf.h"
#include "gate/frames.h"

namespace staghorn {

enum class GateMode : uint32_t { Pass = 0, Hold = 1 };

// The first 64 bytes of the state: one for the host.
struct HostWord {
  uint32_t mode;
  uint32_t mark;
  uint64_t nonce;
  uint32_t slots;
  uint32_t listening;  // whether markers are handed over
  uint32_t admitting;  // edge: the processor that lets a frame of ours in, plus 1
  uint32_t probing;    // edge: that frame only tries the way, and is dropped
  uint32_t counts_inside;  // the programs keep `inside`; those of earlier versions do not
  uint32_t reserved[7];
};

// The 64 bytes of a port. All but `returned` and `attempt` are written by the program only.
// diverted != returned: something is held for the port, and whatever comes joins the end of its queue.
struct PortWord {
  uint64_t diverted;
  uint64_t returned;
  uint64_t seen;     // marked frames that passed
  uint64_t passed;
  uint64_t failed;   // should have been held, but could not be handed over, and passed
  uint64_t markers;  // all that came, handed over or not
  uint64_t attempt;  // the reinjection under way: low half of `returned`, low half of the `seen` it will make
  union {
    uint64_t dropped;  // edge: dropped as the user wishes
    uint64_t inside;   // else: how many runs are between their look at the mode and the end of what they do about it
  };
};
static_assert(sizeof(HostWord) == 64 && sizeof(PortWord) == 64);

// A frame that did not come through the ring: from a stored snapshot, due at an offset from the port's resumption.
struct PreloadedFrame {
  uint64_t seq;
  int64_t offset_ns;
  uint32_t gso_size;
  std::vector<uint8_t> bytes;
};

// The state map, mapped. Lives as long as anybody looks at it: JavaScript's view of it outlives the gate.
class GateState {
 public:
  GateState(int map, size_t size_bytes);
  ~GateState();
  GateState(const GateState &) = delete;
  GateState &operator=(const GateState &) = delete;

  HostWord *Host() const { return static_cast<HostWord *>(memory_); }
  PortWord *Port(uint32_t slot) const { return static_cast<PortWord *>(memory_) + 1 + slot; }
  uint32_t Slots() const { return uint32_t(size_ / sizeof(PortWord)) - 1; }
  void *Memory() const { return memory_; }
  size_t SizeBytes() const { return size_; }

  GateMode Mode() const { return GateMode(__atomic_load_n(&Host()->mode, __ATOMIC_SEQ_CST)); }
  void SetMode(GateMode mode) const { __atomic_store_n(&Host()->mode, uint32_t(mode), __ATOMIC_SEQ_CST); }

 private:
  void *memory_;
  size_t size_;
};

inline uint64_t Read64(const uint64_t &word) { return __atomic_load_n(&word, __ATOMIC_SEQ_CST); }
inline void Write64(uint64_t &word, uint64_t value) { __atomic_store_n(&word, value, __ATOMIC_SEQ_CST); }

// Marks a reinjection as under way, as over, and settles one that a dead process left behind.
void BeginAttempt(PortWord &port);
void EndAttempt(PortWord &port, bool accepted);
bool SettleAttempt(PortWord &port);

struct GateCore {
  Descriptor state_map;
  Descriptor ring_map;
  std::shared_ptr<GateState> state;
  std::unique_ptr<Ring> ring;
  // Markers have a ring of their own: they take no frame's room, and are read and forgotten while frames are held.
  Descriptor marker_map;
  std::unique_ptr<Ring> markers;
  // Opened once: closing a packet socket waits for an RCU grace period, 10 ms and more.
  Descriptor past_qdisc;
  Descriptor through_qdisc;
  std::map<uint32_t, std::vector<PreloadedFrame>> preloaded;  // by slot, in order of seq
};

enum class ProgramKind { Tap, Egress };

// The program of one port (docs of its steps in gate.cc).
Descriptor LoadGateProgram(const GateCore &core, ProgramKind kind, uint32_t slot);

}  // namespace staghorn
