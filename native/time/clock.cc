// Clocks, and a sleep that ends at an instant.
#include <sys/timex.h>

#include <ctime>

#include "addon.h"
#include "job.h"
#include "time/wake.h"

namespace staghorn {

static int64_t ReadClock(clockid_t id) {
  timespec now;
  clock_gettime(id, &now);
  return int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

template <clockid_t id>
static Napi::Value ClockNs(const Napi::CallbackInfo &info) {
  return BigIntOf(info.Env(), ReadClock(id));
}

// Of several paired reads the one whose two outer reads lie closest together is the least disturbed.
static Napi::Value RealtimeMinusMonotonicNs(const Napi::CallbackInfo &info) {
  constexpr int kReads = 16;
  int64_t best_width = INT64_MAX, best = 0;
  for (int i = 0; i < kReads; i++) {
    int64_t before = ReadClock(CLOCK_MONOTONIC);
    int64_t realtime = ReadClock(CLOCK_REALTIME);
    int64_t width = ReadClock(CLOCK_MONOTONIC) - before;
    if (width < best_width) {
      best_width = width;
      best = realtime - (before + width / 2);
    }
  }
  return BigIntOf(info.Env(), best);
}

// How far CLOCK_REALTIME may be off at most, if a daemon keeps it and has told the kernel (adjtimex(2)); null if nobody does,
// or while a leap second is near: then two hosts may differ by one.
static Napi::Value RealtimeErrorNs(const Napi::CallbackInfo &info) {
  timex state = {};
  bool kept = adjtimex(&state) == TIME_OK && (state.status & STA_UNSYNC) == 0;
  return kept ? Napi::Number::New(info.Env(), double(state.maxerror) * 1000) : info.Env().Null();
}

class SleepJob : public Job {
 public:
  SleepJob(int64_t at_ns, int64_t spin_ns, int priority) : at_ns_(at_ns), spin_ns_(spin_ns), priority_(priority) {}

 protected:
  void Run() override {
    if (priority_ > 0) realtime_ = TryRealtime(priority_);
    wakeup_ = SleepUntil(at_ns_, spin_ns_, *control());
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("wokeNs", BigIntOf(env, wakeup_.woke_ns));
    result.Set("latenessNs", Napi::Number::New(env, double(wakeup_.woke_ns - at_ns_)));
    result.Set("longestGapNs", Napi::Number::New(env, double(wakeup_.longest_gap_ns)));
    result.Set("realtime", Napi::Boolean::New(env, realtime_));
    return result;
  }

 private:
  int64_t at_ns_, spin_ns_;
  Wakeup wakeup_{};
  int priority_;
  bool realtime_ = false;
};

static Napi::Value StartSleep(const Napi::CallbackInfo &info) {
  Napi::Object options = info[0].As<Napi::Object>();
  return Job::Start(info.Env(), std::make_unique<SleepJob>(Int64Of(options.Get("atNs")),
                                                           options.Get("spinNs").As<Napi::Number>().Int64Value(),
                                                           options.Get("realtimePriority").As<Napi::Number>().Int32Value()));
}

// clock_nanosleep(2) as programs use it, to compare with.
class NanosleepJob : public Job {
 public:
  explicit NanosleepJob(int64_t at_ns) : at_ns_(at_ns) {}

 protected:
  void Run() override {
    timespec at = {time_t(at_ns_ / 1000000000), long(at_ns_ % 1000000000)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {
    }
    woke_ns_ = MonotonicNs();
  }
  Napi::Value Result(Napi::Env env) override { return Napi::Number::New(env, double(woke_ns_ - at_ns_)); }

 private:
  int64_t at_ns_, woke_ns_ = 0;
};

static Napi::Value StartNanosleep(const Napi::CallbackInfo &info) {
  return Job::Start(info.Env(), std::make_unique<NanosleepJob>(Int64Of(info[0])));
}

static Facility clock_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("monotonicNs", Napi::Function::New<ClockNs<CLOCK_MONOTONIC>>(env));
  exports.Set("realtimeNs", Napi::Function::New<ClockNs<CLOCK_REALTIME>>(env));
  exports.Set("taiNs", Napi::Function::New<ClockNs<CLOCK_TAI>>(env));
  exports.Set("realtimeErrorNs", Napi::Function::New<RealtimeErrorNs>(env));
  exports.Set("realtimeMinusMonotonicNs", Napi::Function::New<RealtimeMinusMonotonicNs>(env));
  exports.Set("startNanosleep", Napi::Function::New<StartNanosleep>(env));
  exports.Set("startSleep", Napi::Function::New<StartSleep>(env));
});

}  // namespace staghorn
