// The cut: one pass of a real-time thread for which everything was allocated, touched and locked beforehand.
#include <poll.h>
#include <time.h>

#include <algorithm>
#include <set>

#include "addon.h"
#include "job.h"
#include "gate/leftovers.h"
#include "process/paused-threads.h"
#include "time/held-vcpus.h"
#include "time/poll-watch.h"
#include "time/prepared-writes.h"
#include "time/realtime-thread.h"
#include "time/wake.h"

namespace staghorn {

static constexpr long kRingPollNs = 30000;        // gives the core away between two looks at the rings
static constexpr int64_t kSureBoundNs = 1000000;   // how long a QEMU that is busy is waited for, to see what it waits for
static constexpr int64_t kPauseBoundNs = 2000000;  // a thread that does not stand still by then gets no CPU at all
static constexpr int64_t kReadBoundNs = 2000000;   // main threads stand so long at most until their commands are read
static constexpr int64_t kHeldBoundNs = 10000000;  // and vCPUs so long, whatever their main threads do

static constexpr int64_t kHeadLeadNs = 8000000;    // for monitors to read what is written ahead, also beside busy guests

// What reads a tap's ring, and how the cut treats it.
struct Reader {
  pid_t thread;   // QEMU's main thread; 0 where it is another's task
  int qemu_fd;    // which it waits for unless it has a frame that it cannot deliver; -1: not known to
  bool awaited;   // it reads, and gets the time to empty the ring itself
  bool replaced;  // what it leaves is read in its place
};

class CutJob : public Job {
 public:
  explicit CutJob(Napi::Object options) : writes_(PreparedWritesOf(options.Get("writes").As<Napi::Array>())) {
    Keep(options);
    at_ns_ = Int64Of(options.Get("atNs"));
    spin_ns_ = options.Get("spinNs").As<Napi::Number>().Int64Value();
    ring_bound_ns_ = options.Get("ringBoundNs").As<Napi::Number>().Int64Value();
    answer_bound_ns_ = options.Get("answerBoundNs").As<Napi::Number>().Int64Value();
    priority_ = options.Get("realtimePriority").As<Napi::Number>().Int32Value();
    Napi::Array mode_words = options.Get("modeWords").As<Napi::Array>();
    for (uint32_t i = 0; i < mode_words.Length(); i++)
      mode_words_.push_back(static_cast<uint32_t *>(mode_words.Get(i).As<Napi::ArrayBuffer>().Data()));
    for (PreparedWrite &write : writes_) order_.push_back(&write);
    if (options.Get("journal").IsObject()) journal_ = JournalOf(options.Get("journal"));
    Napi::Array taps = options.Get("taps").As<Napi::Array>();
    taps_ = RingTapsOf(taps);
    for (uint32_t i = 0; i < taps.Length(); i++) {
      Napi::Object tap = taps.Get(i).As<Napi::Object>();
      readers_.push_back({tap.Get("readerThread").As<Napi::Number>().Int32Value(), tap.Get("qemuFd").As<Napi::Number>().Int32Value(),
                          tap.Get("awaited").As<Napi::Boolean>().Value(), tap.Get("replaced").As<Napi::Boolean>().Value()});
      bool watched = readers_[i].qemu_fd >= 0 && readers_[i].thread != 0;
      if (watched && (watches_.empty() || watches_.back().process() != readers_[i].thread)) watches_.emplace_back(readers_[i].thread);
      polled_.push_back({taps_[i].fd, POLLIN, 0});
    }
    threads_.reserve(taps_.size());
    stuck_.reserve(taps_.size());
  }

 protected:
  void Run() override {
    PrepareThread(&realtime_, priority_);
    LockedPages storage(journal_ ? journal_->memory() : nullptr, journal_ ? journal_->size() : 0);
    LockedPages writes(writes_.data(), writes_.size() * sizeof(PreparedWrite));
    HeldVcpus vcpus(writes_);
    if (MayPause()) pauser_ = std::make_unique<ThreadPauser>(priority_);
    SleepUntil(at_ns_ - kHeadLeadNs, 0, *control());
    WriteHeads(writes_);
    try {
      woke_ns_ = SleepUntil(at_ns_, spin_ns_, *control()).woke_ns;
    } catch (const SystemError &) {
      RecallHeads(writes_);
      throw;
    }
    for (uint32_t *mode : mode_words_) __atomic_store_n(mode, 1, __ATOMIC_RELEASE);
    flipped_ns_ = MonotonicNs();
    WaitForRings();
    Pause();
    if (ReadLeftovers()) rings_empty_ns_ = MonotonicNs();
    WriteAll(vcpus);
    AwaitAnswers(writes_, answer_bound_ns_);
    pauser_.reset();
  }

  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("realtime", Napi::Boolean::New(env, realtime_));
    result.Set("wokeNs", BigIntOf(env, woke_ns_));
    result.Set("flippedNs", BigIntOf(env, flipped_ns_));
    result.Set("ringsEmptyNs", rings_empty_ns_ == 0 ? env.Null() : Napi::Value(BigIntOf(env, rings_empty_ns_)));
    result.Set("writes", WritesResult(env, writes_));
    result.Set("leftoversFull", Napi::Boolean::New(env, full_));
    Napi::Array stuck = Napi::Array::New(env, stuck_.size());
    for (uint32_t i = 0; i < stuck_.size(); i++) stuck.Set(i, Napi::Number::New(env, stuck_[i]));
    result.Set("stuckPorts", stuck);
    result.Set("readersPaused", Napi::Number::New(env, double(paused_)));
    return result;
  }

 private:
  // Looks at all rings once; whether one has frames whose reader is `wanted`.
  template <typename Wanted>
  bool AnyReadable(Wanted wanted) {
    if (polled_.empty() || poll(polled_.data(), polled_.size(), 0) <= 0) return false;
    for (size_t i = 0; i < polled_.size(); i++) {
      if (wanted(readers_[i]) && (polled_[i].revents & POLLIN)) return true;  // not POLLERR: a tap that is gone is empty
    }
    return false;
  }

  // Running VMs read their rings within microseconds; sleeping in between leaves them a core to do so.
  void WaitForRings() {
    int64_t bound_ns = flipped_ns_ + ring_bound_ns_;
    int64_t sure_ns = flipped_ns_ + std::min(ring_bound_ns_, kSureBoundNs);
    for (;;) {
      bool sure = FindStuck();
      bool wait = AnyReadable([](const Reader &reader) { return reader.awaited; }) || !stuck_.empty();
      int64_t now_ns = MonotonicNs();
      if (now_ns >= bound_ns || (!wait && (sure || now_ns >= sure_ns))) break;
      timespec pause = {0, kRingPollNs};
      nanosleep(&pause, nullptr);
    }
  }

  // Ports of which QEMU has read a frame that it cannot deliver. False if a QEMU is at work just now, or wants to be:
  // then it may yet read one, and would not carry out `stop` at once either.
  bool FindStuck() {
    bool sure = true;
    stuck_.clear();
    for (PollWatch &watch : watches_) {
      if (!watch.Look()) {
        sure = false;
        continue;
      }
      for (size_t i = 0; i < readers_.size(); i++) {
        const Reader &reader = readers_[i];
        bool own = reader.thread == watch.process() && reader.qemu_fd >= 0 && !(polled_[i].revents & POLLERR);
        if (own && !watch.WaitsToRead(reader.qemu_fd)) stuck_.push_back(taps_[i].port);
      }
    }
    return sure;
  }

  bool MayPause() const {
    return std::any_of(readers_.begin(), readers_.end(), [](const Reader &reader) { return reader.thread != 0; }) ||
           std::any_of(writes_.begin(), writes_.end(), [](const PreparedWrite &write) { return write.main_thread != 0; });
  }

  // Threads that have left frames in their rings.
  std::set<pid_t> LeavingReaders() {
    std::set<pid_t> threads;
    if (!AnyReadable([](const Reader &reader) { return reader.replaced; })) return threads;
    for (size_t i = 0; i < readers_.size(); i++) {
      if (readers_[i].replaced && readers_[i].thread != 0 && (polled_[i].revents & POLLIN)) threads.insert(readers_[i].thread);
    }
    return threads;
  }

  // Main threads that are to carry out their commands at once, their vCPUs, and who has left frames in a ring.
  void Pause() {
    for (const PreparedWrite &write : writes_) {
      if (write.main_thread != 0) threads_.push_back(write.main_thread);
      threads_.insert(threads_.end(), write.vcpus.begin(), write.vcpus.end());
    }
    std::set<pid_t> readers = LeavingReaders();
    threads_.insert(threads_.end(), readers.begin(), readers.end());  // who is held already is held once
    if (!threads_.empty()) pauser_->Pause(threads_, kPauseBoundNs);
    paused_ = size_t(std::count_if(readers.begin(), readers.end(), [this](pid_t thread) { return pauser_->Holds(thread); }));
  }

  // Reads what is left, while nobody else does: a frame that QEMU read in between would overtake those before it.
  // Returns whether all rings are empty then.
  bool ReadLeftovers() {
    if (AnyReadable([](const Reader &reader) { return reader.replaced; })) {
      for (size_t i = 0; i < taps_.size() && !full_; i++) {
        if (readers_[i].replaced) full_ = !journal_ || !journal_->ReadAll(&taps_[i], 1, flipped_ns_);
      }
    }
    return !AnyReadable([](const Reader &) { return true; });
  }

  // Whose main thread stands still is told first; it goes on when all are told.
  void WriteAll(HeldVcpus &vcpus) {
    auto held = [this](const PreparedWrite &write) { return pauser_ && pauser_->Holds(write.main_thread); };
    auto free = std::stable_partition(order_.begin(), order_.end(), [&](PreparedWrite *write) { return held(*write); });
    std::for_each(order_.begin(), free, [](PreparedWrite *write) { WriteOut(*write); });
    if (free != order_.begin()) AwaitRead(writes_, kReadBoundNs);
    std::for_each(free, order_.end(), [](PreparedWrite *write) { WriteOut(*write); });
    if (!pauser_) return;
    pauser_->Release([this, &vcpus] {
      for (PreparedWrite *write : order_) pauser_->LetGo(write->main_thread);
      vcpus.LetGo(*pauser_, false, kHeldBoundNs);
    });
  }

  int64_t at_ns_, spin_ns_, ring_bound_ns_, answer_bound_ns_;
  int priority_;
  std::vector<uint32_t *> mode_words_;
  std::shared_ptr<LeftoverJournal> journal_;
  std::vector<RingTap> taps_;
  std::vector<Reader> readers_;
  std::vector<pollfd> polled_;
  std::vector<PollWatch> watches_;
  std::vector<uint32_t> stuck_;
  std::vector<pid_t> threads_;
  std::unique_ptr<ThreadPauser> pauser_;
  size_t paused_ = 0;
  bool full_ = false;
  std::vector<PreparedWrite> writes_;
  std::vector<PreparedWrite *> order_;
  bool realtime_ = false;
  int64_t woke_ns_ = 0, flipped_ns_ = 0, rings_empty_ns_ = 0;
};

static Facility cut_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startCut", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<CutJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
