// The resume: every VM goes on at its own instant.
#include <algorithm>

#include "addon.h"
#include "job.h"
#include "process/paused-threads.h"
#include "time/held-vcpus.h"
#include "time/prepared-writes.h"
#include "time/realtime-thread.h"
#include "time/wake.h"

namespace staghorn {

static constexpr int64_t kHoldLeadNs = 1500000;   // for main threads to be held and told, before the first instant
static constexpr int64_t kPauseBoundNs = 2000000;  // a thread that does not stand still by then gets no CPU at all
static constexpr int64_t kReadBoundNs = 1000000;   // for commands to be read
static constexpr int64_t kHeldBoundNs = 10000000;  // vCPUs stand no longer than this, whatever their main threads do
static constexpr int64_t kNextSpinNs = 10000;      // between two VMs: a thread that spins takes a processor from theirs

class ResumeJob : public Job {
 public:
  explicit ResumeJob(Napi::Object options) : writes_(PreparedWritesOf(options.Get("writes").As<Napi::Array>())) {
    Keep(options);
    spin_ns_ = options.Get("spinNs").As<Napi::Number>().Int64Value();
    answer_bound_ns_ = options.Get("answerBoundNs").As<Napi::Number>().Int64Value();
    priority_ = options.Get("realtimePriority").As<Napi::Number>().Int32Value();
    for (PreparedWrite &write : writes_) order_.push_back(&write);
    std::stable_sort(order_.begin(), order_.end(), [](PreparedWrite *a, PreparedWrite *b) { return a->at_ns < b->at_ns; });
    for (PreparedWrite *write : order_) {
      if (write->main_thread != 0) threads_.push_back(write->main_thread);
      threads_.insert(threads_.end(), write->vcpus.begin(), write->vcpus.end());
    }
  }

 protected:
  void Run() override {
    PrepareThread(&realtime_, priority_);
    LockedPages writes(writes_.data(), writes_.size() * sizeof(PreparedWrite));
    if (writes_.empty()) return;
    // Cancellable until the first command is given only: half of the VMs resumed is what nobody wants.
    if (threads_.empty()) {
      SleepUntil(order_.front()->at_ns - kHoldLeadNs, 0, *control());
      WriteHeads(writes_);
      LetAllGo(nullptr);
    } else {
      HoldAndLetGo();
      LetAllGo(nullptr);  // all are told by now, unless the tracer had no processor in time or was killed
    }
    AwaitAnswers(writes_, answer_bound_ns_);
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("realtime", Napi::Boolean::New(env, realtime_));
    result.Set("writes", WritesResult(env, writes_));
    return result;
  }

 private:
  void HoldAndLetGo() {
    HeldVcpus vcpus(writes_);
    ThreadPauser pauser(priority_);
    SleepUntil(order_.front()->at_ns - kHoldLeadNs, 0, *control());
    WriteHeads(writes_);
    pauser.Pause(threads_, kPauseBoundNs);
    for (PreparedWrite *write : order_) {
      if (pauser.Holds(write->main_thread)) WriteOut(*write);
    }
    AwaitRead(writes_, kReadBoundNs);
    // In the tracer, which alone can let them go in time.
    pauser.Release([&] {
      LetAllGo(&pauser);
      vcpus.LetGo(pauser, true, kHeldBoundNs);
    });
  }

  void LetAllGo(ThreadPauser *pauser) {
    JobControl never;
    int64_t spin_ns = spin_ns_;
    for (PreparedWrite *write : order_) {
      if (pauser == nullptr && write->written_ns != 0) continue;
      SleepUntil(write->at_ns, spin_ns, never);
      spin_ns = std::min(spin_ns_, kNextSpinNs);
      if (write->done < write->length) WriteOut(*write);
      if (pauser != nullptr) pauser->LetGo(write->main_thread);
      write->written_ns = MonotonicNs();
      if (write->lets_go) write->lets_go->Release();
    }
  }

  int64_t spin_ns_, answer_bound_ns_;
  int priority_;
  bool realtime_ = false;
  std::vector<PreparedWrite> writes_;
  std::vector<PreparedWrite *> order_;
  std::vector<pid_t> threads_;
};

static Facility resume_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startResume", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<ResumeJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
