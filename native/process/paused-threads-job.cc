// startPauseThreads: keeps threads of other processes from running until endPauseThreads, or until this process ends.
#include "addon.h"
#include "job.h"
#include "process/paused-threads-job.h"

namespace staghorn {

using SharedPauser = std::shared_ptr<ThreadPauser>;

namespace {

class PauseJob : public Job {
 public:
  PauseJob(std::vector<pid_t> threads, int64_t bound_ns) : threads_(std::move(threads)), bound_ns_(bound_ns) {}

 protected:
  void Run() override {
    pauser_ = std::make_shared<ThreadPauser>(1);
    paused_ = pauser_->Pause(threads_, bound_ns_);
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    auto *kept = new SharedPauser(std::move(pauser_));
    result.Set("native", Napi::External<SharedPauser>::New(env, kept, [](Napi::Env, SharedPauser *pauser) { delete pauser; }));
    result.Set("paused", Napi::Number::New(env, double(paused_)));
    return result;
  }

 private:
  std::vector<pid_t> threads_;
  int64_t bound_ns_;
  SharedPauser pauser_;
  size_t paused_ = 0;
};

Napi::Value StartPauseThreads(const Napi::CallbackInfo &info) {
  std::vector<pid_t> threads;
  Napi::Array given = info[0].As<Napi::Array>();
  for (uint32_t i = 0; i < given.Length(); i++) threads.push_back(given.Get(i).As<Napi::Number>().Int32Value());
  int64_t bound_ns = info[1].As<Napi::Number>().Int64Value();
  return Job::Start(info.Env(), std::make_unique<PauseJob>(std::move(threads), bound_ns));
}

Facility paused_threads_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startPauseThreads", Napi::Function::New<StartPauseThreads>(env));
  exports.Set("endPauseThreads", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                info[0].As<Napi::External<SharedPauser>>().Data()->reset();
              }));
});

}  // namespace

SharedPauser PauserOf(const Napi::Value &native) { return *native.As<Napi::External<SharedPauser>>().Data(); }

}  // namespace staghorn
