// The resume: every VM goes on at its own instant.
#include <algorithm>

#include "addon.h"
#include "job.h"
#include "process/paused-threads.h"
#include "time/prepared-writes.h"
#include "time/realtime-thread.h"
#include "time/wake.h"

namespace staghorn {

static constexpr int64_t kAheadNs = 1500000;   // for commands to be read but for their last byte, before the first instant
static constexpr int64_t kNextSpinNs = 10000;  // between two VMs: a thread that spins takes a processor from theirs

class ResumeJob : public Job {
 public:
  explicit ResumeJob(Napi::Object options) : writes_(PreparedWritesOf(options.Get("writes").As<Napi::Array>())) {
    Keep(options);
    spin_ns_ = options.Get("spinNs").As<Napi::Number>().Int64Value();
    answer_bound_ns_ = options.Get("answerBoundNs").As<Napi::Number>().Int64Value();
    priority_ = options.Get("realtimePriority").As<Napi::Number>().Int32Value();
    for (PreparedWrite &write : writes_) order_.push_back(&write);
    std::stable_sort(order_.begin(), order_.end(), [](PreparedWrite *a, PreparedWrite *b) { return a->at_ns < b->at_ns; });
  }

 protected:
  void Run() override {
    PrepareThread(&realtime_, priority_);
    LockedPages writes(writes_.data(), writes_.size() * sizeof(PreparedWrite));
    if (writes_.empty()) return;
    // Cancellable until the first command is given only: half of the VMs resumed is what nobody wants.
    SleepUntil(order_.front()->at_ns - kAheadNs, 0, *control());
    WriteHeads(writes_);
    WriteEach();
    AwaitAnswers(writes_, answer_bound_ns_);
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("realtime", Napi::Boolean::New(env, realtime_));
    result.Set("writes", WritesResult(env, writes_));
    return result;
  }

 private:
  void WriteEach() {
    JobControl never;
    int64_t spin_ns = spin_ns_;
    for (PreparedWrite *write : order_) {
      SleepUntil(write->at_ns, spin_ns, never);
      spin_ns = std::min(spin_ns_, kNextSpinNs);
      WriteOut(*write);
      if (write->lets_go) write->lets_go->Release();
    }
  }

  int64_t spin_ns_, answer_bound_ns_;
  int priority_;
  bool realtime_ = false;
  std::vector<PreparedWrite> writes_;
  std::vector<PreparedWrite *> order_;
};

static Facility resume_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startResume", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<ResumeJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
