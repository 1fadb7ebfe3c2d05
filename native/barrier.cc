// The two instants of a barrier: the cut, and the resume. Each is one pass of a real-time thread for which
// everything was allocated, touched and locked beforehand.
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "addon.h"
#include "job.h"

namespace staghorn {

static constexpr size_t kFrameBytesMax = 65536 + 64;  // a GSO frame of 64 KiB and its Ethernet and VLAN headers
static constexpr size_t kHeaderBytesMax = 64;         // virtio-net headers have 10, 12 or 20 bytes
static constexpr int kMaxFrames = 65536;
static constexpr long kRingPollNs = 30000;            // gives the core away between two looks at the rings

struct Write {
  int fd;
  const uint8_t *data;
  size_t length;
  int64_t at_ns;
  int64_t written_ns;
  int error;
};

struct Tap {
  int fd;
  size_t header_bytes;
};

struct Leftover {
  uint32_t tap;
  int64_t at_ns;
  size_t offset, length;
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
    writes[i] = {write.Get("fd").As<Napi::Number>().Int32Value(), bytes.Data(), bytes.ByteLength(), at_ns, 0, 0};
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
    Napi::ArrayBuffer leftovers = options.Get("leftovers").As<Napi::ArrayBuffer>();
    storage_ = static_cast<uint8_t *>(leftovers.Data());
    storage_bytes_ = leftovers.ByteLength();
    Napi::Array taps = options.Get("taps").As<Napi::Array>();
    for (uint32_t i = 0; i < taps.Length(); i++) {
      Napi::Object tap = taps.Get(i).As<Napi::Object>();
      taps_.push_back({tap.Get("fd").As<Napi::Number>().Int32Value(), tap.Get("headerBytes").As<Napi::Number>().Uint32Value()});
      polled_.push_back({taps_[i].fd, POLLIN, 0});
    }
    if (!taps_.empty()) leftovers_.resize(kMaxFrames);
  }

 protected:
  void Run() override {
    PrepareThread(&realtime_, priority_);
    LockedPages storage(storage_, storage_bytes_);
    LockedPages list(leftovers_.data(), leftovers_.size() * sizeof(Leftover));
    LockedPages writes(writes_.data(), writes_.size() * sizeof(Write));
    woke_ns_ = SleepUntil(at_ns_, spin_ns_, *control());
    for (uint32_t *mode : mode_words_) __atomic_store_n(mode, 1, __ATOMIC_RELEASE);
    flipped_ns_ = MonotonicNs();
    if (WaitForRings()) rings_empty_ns_ = MonotonicNs();
    else ReadLeftovers();
    for (Write &write : writes_) WriteOut(write);
  }

  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("realtime", Napi::Boolean::New(env, realtime_));
    result.Set("wokeNs", BigIntOf(env, woke_ns_));
    result.Set("flippedNs", BigIntOf(env, flipped_ns_));
    result.Set("ringsEmptyNs", rings_empty_ns_ == 0 ? env.Null() : Napi::Value(BigIntOf(env, rings_empty_ns_)));
    result.Set("writes", WritesResult(env, writes_));
    Napi::Array frames = Napi::Array::New(env, count_);
    for (uint32_t i = 0; i < count_; i++) {
      Napi::Object frame = Napi::Object::New(env);
      frame.Set("tapIndex", Napi::Number::New(env, leftovers_[i].tap));
      frame.Set("atNs", BigIntOf(env, leftovers_[i].at_ns));
      frame.Set("frame", Napi::Buffer<uint8_t>::Copy(env, storage_ + leftovers_[i].offset, leftovers_[i].length));
      frames.Set(i, frame);
    }
    result.Set("leftovers", frames);
    result.Set("leftoversFull", Napi::Boolean::New(env, full_));
    return result;
  }

 private:
  // Running VMs read their rings within microseconds; sleeping in between leaves them a core to do so.
  bool WaitForRings() {
    int64_t bound_ns = flipped_ns_ + ring_bound_ns_;
    for (;;) {
      if (polled_.empty() || poll(polled_.data(), polled_.size(), 0) == 0) return true;
      bool readable = false;
      for (const pollfd &tap : polled_) readable |= (tap.revents & POLLIN) != 0;
      if (!readable) return true;  // a tap that is gone (POLLERR) holds nothing
      if (MonotonicNs() >= bound_ns) return false;
      timespec pause = {0, kRingPollNs};
      nanosleep(&pause, nullptr);
    }
  }

  void ReadLeftovers() {
    for (uint32_t i = 0; i < taps_.size() && !full_; i++) {
      while (ReadFrame(i)) continue;
    }
    if (!full_) rings_empty_ns_ = MonotonicNs();
  }

  // A QEMU that runs again may empty a ring first: ask before each read, since its descriptor may be a blocking one.
  bool ReadFrame(uint32_t index) {
    pollfd ready = {taps_[index].fd, POLLIN, 0};
    if (poll(&ready, 1, 0) != 1 || !(ready.revents & POLLIN)) return false;
    if (used_ + kFrameBytesMax > storage_bytes_ || count_ == kMaxFrames) {
      full_ = true;  // a frame that does not fit stays in its ring, and the caller is told
      return false;
    }
    uint8_t header[kHeaderBytesMax];
    iovec parts[2] = {{header, taps_[index].header_bytes}, {storage_ + used_, kFrameBytesMax}};
    ssize_t got = readv(taps_[index].fd, parts, 2);
    if (got <= ssize_t(taps_[index].header_bytes)) return got >= 0;
    size_t length = size_t(got) - taps_[index].header_bytes;
    leftovers_[count_++] = {index, MonotonicNs(), used_, length};
    used_ += length;
    return true;
  }

  int64_t at_ns_, spin_ns_, ring_bound_ns_;
  int priority_;
  std::vector<uint32_t *> mode_words_;
  uint8_t *storage_ = nullptr;
  size_t storage_bytes_ = 0, used_ = 0;
  std::vector<Tap> taps_;
  std::vector<pollfd> polled_;
  std::vector<Leftover> leftovers_;
  uint32_t count_ = 0;
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
    for (Write &write : writes_) order_.push_back(&write);
    std::stable_sort(order_.begin(), order_.end(), [](Write *a, Write *b) { return a->at_ns < b->at_ns; });
  }

 protected:
  void Run() override {
    PrepareThread(&realtime_, priority_);
    LockedPages writes(writes_.data(), writes_.size() * sizeof(Write));
    // Cancellable until the first write only: half of the VMs resumed is what nobody wants.
    JobControl never;
    for (Write *write : order_) {
      SleepUntil(write->at_ns, spin_ns_, write == order_.front() ? *control() : never);
      WriteOut(*write);
    }
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
