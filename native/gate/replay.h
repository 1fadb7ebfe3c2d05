// Puts held frames back onto their ports, each at its own time, on a thread of its own.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_map>

#include "gate/gate.h"

namespace staghorn {

struct ReplayPort {
  uint32_t slot;
  int ifindex;
  bool bypass_qdisc;  // true: the gate is behind the queueing discipline
  uint32_t receive_mtu;  // not 0: the gate is at the receive side, and the device has that MTU
  int64_t shift_ns;
  int64_t not_before_ns;
};

struct ReplayOptions {
  std::vector<ReplayPort> ports;
  int64_t live_from_ns;      // frames that arrive from then on were sent after time went on: due at once
  int64_t give_up_after_ns;  // how long a device may refuse a frame
};

struct PortReplay {
  uint32_t slot;
  uint64_t delivered;
  uint64_t preloaded;  // of those delivered
  uint64_t undeliverable;  // the device refused it
  uint64_t missing;        // diverted, but in nobody's hands any more
  int last_error;
};

struct ReplayResult {
  std::vector<PortReplay> ports;
  uint64_t timed;  // frames with a due time of their own, which the lateness is about
  int64_t median_ns, p99_ns, max_ns;
  bool hurried;
  int error;  // 0, or why it ended before every port met
};

// Invariants: a port's frames leave in order of seq; `returned` grows by one, after the device took the frame;
// the ring's consumer position passes a record only after that. So whoever comes after a kill goes on exactly there.
class Replay {
 public:
  Replay(std::shared_ptr<GateCore> core, ReplayOptions options);
  ~Replay();
  Replay(const Replay &) = delete;
  Replay &operator=(const Replay &) = delete;

  ReplayResult Run();
  // From any thread: deliver everything at once, in order; and: end now, and leave the rest where it is.
  void Hurry();
  void Stop();

 private:
  struct Frame {
    uint64_t seq;
    int64_t due_ns;
    FrameView view;
    uint64_t record;  // number among `records_`, or kNoRecord
    bool timed;
    std::vector<uint8_t> own;
  };
  struct Record {
    uint64_t end;
    bool done;
  };
  struct Port {
    ReplayPort options;
    PortWord *word;
    std::deque<Frame> queue;
    int64_t last_due_ns;
    int64_t queued_due_ns, queued_at_ns;  // of the frame that came last
    uint32_t admitted;                    // since the receivers were looked at
    int64_t admitted_ns;                  // when the last frame was let in
    int64_t ready_ns;
    int64_t refused_since_ns;
    bool waiting;  // in ready_
    PortReplay result;
  };
  static constexpr uint64_t kNoRecord = UINT64_MAX;

  void TakePreloaded();
  bool ReadRing();
  void TakeRecord(const Ring::Record &record);
  void Enqueue(Port &port, Frame frame);
  void Schedule(Port &port, int64_t retry_ns);
  void SkipGap(Port &port, bool caught_up);
  void Deliver(Port &port);
  int Hand(Port &port, const FrameView &frame);
  int Admit(Port &port, const FrameView &frame);
  int64_t DueOf(Port &port, const RecordHeader &header, bool timed);
  void Conclude(Port &port, bool delivered, int error);
  void MarkDone(uint64_t record);
  bool AllMet();
  bool SeenOutside() const;
  void OpenGate(int64_t now);
  void ApplyHurry();
  void WaitFor(int64_t due_ns, int64_t now);
  ReplayResult Summarize();

  std::shared_ptr<GateCore> core_;
  ReplayOptions options_;
  Descriptor wake_;
  Descriptor admission_;
  std::map<uint32_t, Port> ports_;
  std::set<std::pair<int64_t, uint32_t>> ready_;
  std::deque<Record> records_;
  uint64_t first_record_ = 0;
  uint64_t cursor_;
  std::vector<int64_t> lateness_ns_;
  std::atomic<bool> hurry_{false};
  std::atomic<bool> stop_{false};
  bool hurried_ = false;
  bool opened_ = false;
  int error_ = 0;
};

}  // namespace staghorn
