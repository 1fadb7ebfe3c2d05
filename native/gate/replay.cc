#include "gate/replay.h"

#include <linux/membarrier.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "addon.h"
#include "gate/edge.h"

namespace staghorn {

namespace {

constexpr int64_t kSpinNs = 50'000;
// A racing frame may be diverted on a port whose queue is empty: look at the ring at least this often.
constexpr int64_t kLookNs = 1'000'000;
constexpr int64_t kRetryNs = 100'000;
// In a hurry a receive side gets its queue within about this time, and no faster than its far end bears: a burst that
// a guest answers with one overruns the switch on the way back.
constexpr int64_t kHurryNs = 5'000'000'000, kHurryGapNs = 500'000;
// A full packet socket is waited for before this many frames more.
constexpr uint32_t kAdmittedAtOnce = 8;
constexpr int kLooksMax = 1000;

// Returns after every program that was running has ended (they run under RCU's read lock): after 10 ms and more.
void WaitForGracePeriod() {
  if (syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) == 0) return;
  usleep(50'000);  // a kernel with nohz_full has no such command
}

void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

int64_t HurryGapNs(size_t frames) { return std::min(kHurryGapNs, kHurryNs / int64_t(frames)); }

int64_t Percentile(const std::vector<int64_t> &sorted, double share) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1, size_t(double(sorted.size()) * share))];
}

}  // namespace

Replay::Replay(std::shared_ptr<GateCore> core, ReplayOptions options)
    : core_(std::move(core)), options_(std::move(options)), wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (wake_.get() < 0) throw SyscallError{errno, "eventfd"};
  cursor_ = core_->ring->ConsumerPosition();
  for (const ReplayPort &port : options_.ports) {
    if (port.receive_mtu != 0 && admission_.get() < 0) admission_ = LoadAdmission(core_->state_map.get(), false);
    Port &made = ports_[port.slot];
    made.options = port;
    made.word = core_->state->Port(port.slot);
    made.last_due_ns = port.not_before_ns;
    made.queued_due_ns = made.queued_at_ns = 0;
    made.admitted = 0;
    made.admitted_ns = 0;
    made.ready_ns = 0;
    made.refused_since_ns = 0;
    made.waiting = false;
    made.result = {port.slot, 0, 0, 0, 0, 0};
  }
}

Replay::~Replay() = default;

void Replay::Hurry() {
  hurry_ = true;
  eventfd_write(wake_.get(), 1);
}

void Replay::Stop() {
  stop_ = true;
  eventfd_write(wake_.get(), 1);
}

ReplayResult Replay::Run() {
  prctl(PR_SET_TIMERSLACK, 1);
  // On a busy host an ordinary thread is tens of milliseconds late. This one sleeps nearly always. Where it may
  // not be real-time it is late, and says so in the report.
  sched_param priority{1};
  pthread_setschedparam(pthread_self(), SCHED_FIFO, &priority);
  TakePreloaded();
  while (!stop_) {
    ApplyHurry();
    OpenGate(MonotonicNs());
    if (opened_ && core_->state->Mode() != GateMode::Pass) {
      error_ = ECANCELED;  // somebody holds the gate anew: what is left stays held
      break;
    }
    bool caught_up = ReadRing();
    if (caught_up && opened_ && ready_.empty() && (error_ != 0 || AllMet())) break;
    int64_t now = MonotonicNs();
    auto [ready_ns, slot] = ready_.empty() ? std::pair{INT64_MAX, 0u} : *ready_.begin();
    if (ready_ns > now) {
      WaitFor(ready_ns, now);
      continue;
    }
    Port &port = ports_.at(slot);
    SkipGap(port, caught_up);
    Deliver(port);
  }
  if (stop_) error_ = ECANCELED;
  return Summarize();
}

void Replay::TakePreloaded() {
  for (auto &[slot, port] : ports_) {
    auto found = core_->preloaded.find(slot);
    if (found == core_->preloaded.end()) continue;
    for (PreloadedFrame &frame : found->second) {
      int64_t due = port.options.not_before_ns + frame.offset_ns;
      FrameView view{nullptr, uint32_t(frame.bytes.size()), frame.gso_size, false, {}};
      Enqueue(port, Frame{frame.seq, due, view, kNoRecord, true, std::move(frame.bytes)});
    }
    core_->preloaded.erase(found);
  }
}

// Takes what is in the ring; true if nothing is left in it, not even a record that is still being written.
bool Replay::ReadRing() {
  while (auto record = core_->ring->At(cursor_)) {
    TakeRecord(*record);
    cursor_ = record->end;
  }
  return cursor_ == core_->ring->ProducerPosition();
}

void Replay::TakeRecord(const Ring::Record &record) {
  uint64_t number = first_record_ + records_.size();
  records_.push_back({record.end, false});
  const RecordHeader *header = record.header;
  if (!header) return MarkDone(number);
  auto found = ports_.find(header->slot);
  if (found == ports_.end()) {
    if (header->slot < core_->state->Slots() && header->seq < Read64(core_->state->Port(header->slot)->returned)) {
      return MarkDone(number);
    }
    error_ = ENODEV;  // held for a port that nobody named
    return;
  }
  Port &port = found->second;
  bool timed = int64_t(header->at_ns) < options_.live_from_ns;
  int64_t due = DueOf(port, *header, timed);
  Enqueue(port, Frame{header->seq, due, ViewOf(*header, record.bytes), number, timed, {}});
}

int64_t Replay::DueOf(Port &port, const RecordHeader &header, bool timed) {
  int64_t at = int64_t(header.at_ns), due = at + (timed ? port.options.shift_ns : 0);
  // Behind a receive side is a switch that drops what a VM does not take in time: what came since time goes on is
  // caught up with at twice the pace at which it came.
  bool gentle = !timed && port.options.receive_mtu != 0 && port.queued_at_ns != 0;
  if (gentle) due = std::max(due, port.queued_due_ns + (at - port.queued_at_ns) / 2);
  port.queued_at_ns = at;
  port.queued_due_ns = due;
  return due;
}

void Replay::Enqueue(Port &port, Frame frame) {
  if (frame.seq < Read64(port.word->returned)) {  // delivered before a crash
    if (frame.record != kNoRecord) MarkDone(frame.record);
    return;
  }
  // Two processors may take their numbers in another order than their places in the ring.
  auto at = port.queue.end();
  while (at != port.queue.begin() && std::prev(at)->seq > frame.seq) --at;
  port.queue.insert(at, std::move(frame));
  Schedule(port, 0);
}

// Puts the port in line, by the due time of its first frame, which is never before that of an earlier one.
void Replay::Schedule(Port &port, int64_t retry_ns) {
  if (port.waiting) ready_.erase({port.ready_ns, port.options.slot});
  port.waiting = !port.queue.empty();
  if (!port.waiting) return;
  int64_t due = std::max(port.queue.front().due_ns, port.last_due_ns);
  if (hurried_) due = port.options.receive_mtu == 0 ? 0 : port.admitted_ns + HurryGapNs(port.queue.size());
  port.ready_ns = std::max(due, retry_ns);
  ready_.insert({port.ready_ns, port.options.slot});
}

// A number is taken after the record is reserved. So once the ring is read to its end, a number that is lower
// than one that was read, and was not read itself, belongs to no frame.
void Replay::SkipGap(Port &port, bool caught_up) {
  uint64_t returned = Read64(port.word->returned);
  uint64_t first = port.queue.front().seq;
  if (first <= returned || !caught_up) return;
  port.result.missing += first - returned;
  Write64(port.word->returned, first);
}

void Replay::Deliver(Port &port) {
  Frame &frame = port.queue.front();
  if (frame.seq != Read64(port.word->returned)) {  // an earlier one is still being written
    return Schedule(port, MonotonicNs() + kSpinNs);
  }
  if (!frame.own.empty()) frame.view.bytes = frame.own.data();
  int error = port.options.receive_mtu != 0 ? Admit(port, frame.view) : Hand(port, frame.view);
  int64_t now = MonotonicNs();
  if (error == 0) {
    if (frame.timed && !hurried_) lateness_ns_.push_back(now - std::max(frame.due_ns, port.last_due_ns));
    return Conclude(port, true, 0);
  }
  bool full = error == ENOBUFS || error == EAGAIN || error == ENOMEM;
  if (port.refused_since_ns == 0) port.refused_since_ns = now;
  if (full && now - port.refused_since_ns < options_.give_up_after_ns) return Schedule(port, now + kRetryNs);
  Write64(port.word->returned, frame.seq + 1);
  Conclude(port, false, error);
}

int Replay::Hand(Port &port, const FrameView &frame) {
  BeginAttempt(*port.word);
  int socket = port.options.bypass_qdisc ? core_->past_qdisc.get() : core_->through_qdisc.get();
  int error = SendFrame(socket, port.options.ifindex, frame);
  EndAttempt(*port.word, error == 0);
  return error;
}

// Of a frame in segments the last one is the attempt: after a kill between them all come again, which TCP bears.
int Replay::Admit(Port &port, const FrameView &frame) {
  std::vector<std::vector<uint8_t>> pieces = WireFrames(frame, port.options.receive_mtu);
  if (pieces.empty()) return EMSGSIZE;
  port.admitted_ns = MonotonicNs();
  for (const std::vector<uint8_t> &piece : pieces) {
    bool first = &piece == &pieces.front(), last = &piece == &pieces.back();
    for (int looks = 0; port.admitted >= kAdmittedAtOnce && !ReceiversHaveRoom(port.options.ifindex); looks++) {
      if (first || looks == kLooksMax) return EAGAIN;
      usleep(kRetryNs / 1000);
    }
    if (port.admitted++ >= kAdmittedAtOnce) port.admitted = 1;
    if (last) BeginAttempt(*port.word);
    int error = AdmitFrame(admission_.get(), *core_->state, port.options.ifindex, piece);
    if (last) EndAttempt(*port.word, error == 0);
    if (error != 0) return error;
  }
  return 0;
}

void Replay::Conclude(Port &port, bool delivered, int error) {
  Frame &frame = port.queue.front();
  if (delivered) {
    port.result.delivered++;
    if (frame.record == kNoRecord) port.result.preloaded++;
    port.refused_since_ns = 0;
  } else {
    port.result.undeliverable++;
    port.result.last_error = error;
  }
  port.last_due_ns = std::max(port.last_due_ns, frame.due_ns);
  if (frame.record != kNoRecord) MarkDone(frame.record);
  port.queue.pop_front();
  Schedule(port, 0);
}

void Replay::MarkDone(uint64_t record) {
  records_[record - first_record_].done = true;
  uint64_t end = 0;
  while (!records_.empty() && records_.front().done) {
    end = records_.front().end;
    records_.pop_front();
    first_record_++;
  }
  if (end != 0) core_->ring->Release(end);
}

// The end: every port has diverted = returned, and no program is still about to divert because it looked earlier.
bool Replay::AllMet() {
  std::vector<uint64_t> diverted;
  for (auto &[slot, port] : ports_) diverted.push_back(Read64(port.word->diverted));
  if (!ReadRing() || !ready_.empty()) return false;
  size_t i = 0;
  for (auto &[slot, port] : ports_) {
    uint64_t returned = Read64(port.word->returned), expected = diverted[i++];
    if (returned >= expected) continue;
    port.result.missing += expected - returned;
    Write64(port.word->returned, expected);
  }
  if (!SeenOutside()) WaitForGracePeriod();
  if (!ReadRing() || !ready_.empty()) return false;
  i = 0;
  for (auto &[slot, port] : ports_) {
    if (Read64(port.word->diverted) != diverted[i++]) return false;
  }
  return true;
}

// Whether each port was seen with none of its programs inside: then whoever looked earlier has done what it does, and
// whoever looks later finds the gate open. A run takes less than a microsecond, unless this thread keeps it from going on.
bool Replay::SeenOutside() const {
  if (core_->state->Host()->counts_inside == 0) return false;
  int64_t bound_ns = MonotonicNs() + kSpinNs;
  return std::all_of(ports_.begin(), ports_.end(), [bound_ns](const auto &entry) {
    const Port &port = entry.second;
    if (port.options.receive_mtu != 0) return false;  // an edge's programs count something else there
    while (Read64(port.word->inside) != 0) {
      if (MonotonicNs() > bound_ns) return false;
      Relax();
    }
    return true;
  });
}

void Replay::OpenGate(int64_t now) {
  if (opened_ || (now < options_.live_from_ns && !hurried_)) return;
  core_->state->SetMode(GateMode::Pass);
  opened_ = true;
}

void Replay::ApplyHurry() {
  if (hurried_ || !hurry_) return;
  hurried_ = true;
  for (auto &[slot, port] : ports_) Schedule(port, 0);
}

// A timer up to the last stretch, then spinning: timers alone are late by 50 us and more.
void Replay::WaitFor(int64_t due_ns, int64_t now) {
  if (!opened_) due_ns = std::min(due_ns, options_.live_from_ns);
  int64_t look_ns = now + (opened_ && ready_.empty() ? kSpinNs : kLookNs);
  bool due_next = due_ns - kSpinNs <= look_ns;
  int64_t left = (due_next ? due_ns - kSpinNs : look_ns) - now;
  if (left > 0) {
    timespec timeout{left / 1'000'000'000, left % 1'000'000'000};
    pollfd wake{wake_.get(), POLLIN, 0};
    if (ppoll(&wake, 1, &timeout, nullptr) > 0) {
      eventfd_t ignored;
      eventfd_read(wake_.get(), &ignored);
      return;
    }
  }
  while (due_next && MonotonicNs() < due_ns && !stop_) Relax();
}

ReplayResult Replay::Summarize() {
  ReplayResult result{};
  for (auto &[slot, port] : ports_) result.ports.push_back(port.result);
  std::sort(lateness_ns_.begin(), lateness_ns_.end());
  result.timed = lateness_ns_.size();
  result.median_ns = Percentile(lateness_ns_, 0.5);
  result.p99_ns = Percentile(lateness_ns_, 0.99);
  result.max_ns = Percentile(lateness_ns_, 1);
  result.hurried = hurried_;
  result.error = error_;
  return result;
}

}  // namespace staghorn
