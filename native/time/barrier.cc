// The two instants of a barrier: the cut, and the resume. Each is one pass of a real-time thread for which
// everything was allocated, touched and locked beforehand.
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "addon.h"
#include "job.h"
#include "gate/leftovers.h"
#include "process/paused-threads-job.h"
#include "process/paused-threads.h"
#include "time/poll-watch.h"
#include "process/vcpu-hold.h"
#include "time/wake.h"

namespace staghorn {

static constexpr long kRingPollNs = 30000;        // gives the core away between two looks at the rings
static constexpr int64_t kSureBoundNs = 1000000;   // how long a QEMU that is busy is waited for, to see what it waits for
static constexpr int64_t kPauseBoundNs = 2000000;  // a reader that does not stand still by then gets no CPU at all

struct Write {
  int fd;
  const uint8_t *data;
  size_t length;
  int64_t at_ns;
  int64_t written_ns;
  int error;
  std::shared_ptr<ThreadPauser> lets_go;  // right after the write
};

// What reads a tap's ring, and how the cut treats it.
struct Reader {
  pid_t thread;   // QEMU's main thread; 0 where it is another's task
  int qemu_fd;    // which it waits for unless it has a frame that it cannot deliver; -1: not known to
  bool awaited;   // it reads, and gets the time to empty the ring itself
  bool replaced;  // what it leaves is read in its place
};

// Locks pages for as long as it lives; where the limit forbids that, they are at least present.
class LockedPages {
 public:
  LockedPages(const void *start, size_t length) : start_(start), length_(length) { locked_ = mlock(start, length) == 0; }
  ~LockedPages() {
    if (locked_) munlock(start_, length_);
  }

 private:
  const void *start_;
  size_t length_;
  bool locked_;
};

// QMP sockets do not block, and a line is far below a socket's buffer: what does not go in one attempt is an error.
static void WriteOut(Write &write) {
  size_t done = 0;
  while (done < write.length) {
    ssize_t sent = send(write.fd, write.data + done, write.length - done, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == ENOTSOCK) sent = ::write(write.fd, write.data + done, write.length - done);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) {
      write.error = sent == 0 ? EPIPE : errno;
      break;
    }
    done += size_t(sent);
  }
  write.written_ns = MonotonicNs();
}

static void PrepareThread(bool *realtime, int priority) {
  volatile char stack[32768];
  for (size_t i = 0; i < sizeof stack; i += 4096) stack[i] = 0;  // faults the stack in before it matters
  prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  *realtime = TryRealtime(priority);
}

static std::vector<Write> WritesOf(Napi::Array array) {
  std::vector<Write> writes(array.Length());
  for (uint32_t i = 0; i < writes.size(); i++) {
    Napi::Object write = array.Get(i).As<Napi::Object>();
    Napi::Uint8Array bytes = write.Get("bytes").As<Napi::Uint8Array>();
    int64_t at_ns = write.Has("atNs") ? Int64Of(write.Get("atNs")) : 0;
    writes[i] = {write.Get("fd").As<Napi::Number>().Int32Value(), bytes.Data(), bytes.ByteLength(), at_ns, 0, 0, nullptr};
    if (write.Get("letsGo").IsExternal()) writes[i].lets_go = PauserOf(write.Get("letsGo"));
  }
  return writes;
}

static Napi::Array WritesResult(Napi::Env env, const std::vector<Write> &writes) {
  Napi::Array array = Napi::Array::New(env, writes.size());
  for (uint32_t i = 0; i < writes.size(); i++) {
    Napi::Object write = Napi::Object::New(env);
    write.Set("writtenNs", BigIntOf(env, writes[i].written_ns));
    write.Set("error", writes[i].error == 0 ? env.Null() : Napi::Value(ErrnoError(env, writes[i].error, "write").Value()));
    array.Set(i, write);
  }
  return array;
}

static constexpr int64_t kHoldBoundNs = 2000000;   // a vCPU that does not stand by then gets no CPU at all
static constexpr int64_t kHeldBoundNs = 10000000;  // and one that stands for so long goes on, whatever its main thread does

// [{mainThread, vcpuThreads}]
static std::vector<HeldVm> HeldVmsOf(Napi::Array array) {
  std::vector<HeldVm> vms(array.Length());
  for (uint32_t i = 0; i < vms.size(); i++) {
    Napi::Object vm = array.Get(i).As<Napi::Object>();
    vms[i].main = vm.Get("mainThread").As<Napi::Number>().Int32Value();
    Napi::Array vcpus = vm.Get("vcpuThreads").As<Napi::Array>();
    for (uint32_t j = 0; j < vcpus.Length(); j++) vms[i].vcpus.push_back(vcpus.Get(j).As<Napi::Number>().Int32Value());
  }
  return vms;
}

class CutJob : public Job {
 public:
  explicit CutJob(Napi::Object options) : writes_(WritesOf(options.Get("writes").As<Napi::Array>())) {
    Keep(options);
    at_ns_ = Int64Of(options.Get("atNs"));
    spin_ns_ = options.Get("spinNs").As<Napi::Number>().Int64Value();
    ring_bound_ns_ = options.Get("ringBoundNs").As<Napi::Number>().Int64Value();
    priority_ = options.Get("realtimePriority").As<Napi::Number>().Int32Value();
    Napi::Array mode_words = options.Get("modeWords").As<Napi::Array>();
    for (uint32_t i = 0; i < mode_words.Length(); i++)
      mode_words_.push_back(static_cast<uint32_t *>(mode_words.Get(i).As<Napi::ArrayBuffer>().Data()));
    held_ = HeldVmsOf(options.Get("held").As<Napi::Array>());
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
    LockedPages writes(writes_.data(), writes_.size() * sizeof(Write));
    bool pausing = std::any_of(readers_.begin(), readers_.end(), [](const Reader &reader) { return reader.thread != 0; });
    if (!held_.empty()) hold_ = std::make_unique<VcpuHold>(held_, priority_);
    if (pausing) pauser_ = std::make_unique<ThreadPauser>(priority_);
    woke_ns_ = SleepUntil(at_ns_, spin_ns_, *control()).woke_ns;
    for (uint32_t *mode : mode_words_) __atomic_store_n(mode, 1, __ATOMIC_RELEASE);
    flipped_ns_ = MonotonicNs();
    WaitForRings();
    if (ReadLeftovers()) rings_empty_ns_ = MonotonicNs();
    if (hold_) hold_->Hold(kHoldBoundNs);
    for (Write &write : writes_) WriteOut(write);
    if (hold_) hold_->ReleaseWhenAwaited(kHeldBoundNs);
    pauser_.reset();
    hold_.reset();
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

  // Reads what is left, while nobody else does: a frame that QEMU read in between would overtake those before it.
  // Returns whether all rings are empty then.
  bool ReadLeftovers() {
    if (AnyReadable([](const Reader &reader) { return reader.replaced; })) {
      for (size_t i = 0; i < taps_.size(); i++) {
        if (readers_[i].replaced && readers_[i].thread != 0 && (polled_[i].revents & POLLIN)) threads_.push_back(readers_[i].thread);
      }
      if (pauser_) paused_ = pauser_->Pause(threads_, kPauseBoundNs);
      for (size_t i = 0; i < taps_.size() && !full_; i++) {
        if (readers_[i].replaced) full_ = !journal_ || !journal_->ReadAll(&taps_[i], 1, flipped_ns_);
      }
    }
    return !AnyReadable([](const Reader &) { return true; });
  }

  int64_t at_ns_, spin_ns_, ring_bound_ns_;
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
  std::vector<HeldVm> held_;
  std::unique_ptr<VcpuHold> hold_;
  size_t paused_ = 0;
  bool full_ = false;
  std::vector<Write> writes_;
  bool realtime_ = false;
  int64_t woke_ns_ = 0, flipped_ns_ = 0, rings_empty_ns_ = 0;
};

class ResumeJob : public Job {
 public:
  explicit ResumeJob(Napi::Object options) : writes_(WritesOf(options.Get("writes").As<Napi::Array>())) {
    Keep(options);
    spin_ns_ = options.Get("spinNs").As<Napi::Number>().Int64Value();
    priority_ = options.Get("realtimePriority").As<Napi::Number>().Int32Value();
    held_ = HeldVmsOf(options.Get("held").As<Napi::Array>());
    for (Write &write : writes_) order_.push_back(&write);
    std::stable_sort(order_.begin(), order_.end(), [](Write *a, Write *b) { return a->at_ns < b->at_ns; });
  }

 protected:
  void Run() override {
    PrepareThread(&realtime_, priority_);
    LockedPages writes(writes_.data(), writes_.size() * sizeof(Write));
    std::unique_ptr<VcpuHold> hold;
    if (!held_.empty()) {
      hold = std::make_unique<VcpuHold>(held_, priority_);
      hold->Hold(kHoldBoundNs);
    }
    // Cancellable until the first write only: half of the VMs resumed is what nobody wants.
    JobControl never;
    for (Write *write : order_) {
      SleepUntil(write->at_ns, spin_ns_, write == order_.front() ? *control() : never);
      WriteOut(*write);
      if (write->lets_go) write->lets_go->Release();
    }
    if (hold) hold->ReleaseWhenServed(kHeldBoundNs);
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("realtime", Napi::Boolean::New(env, realtime_));
    result.Set("writes", WritesResult(env, writes_));
    return result;
  }

 private:
  int64_t spin_ns_;
  int priority_;
  bool realtime_ = false;
  std::vector<Write> writes_;
  std::vector<Write *> order_;
  std::vector<HeldVm> held_;
};

static Facility barrier_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startCut", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<CutJob>(info[0].As<Napi::Object>()));
              }));
  exports.Set("startResume", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<ResumeJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
