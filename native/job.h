// A job: work in a native thread of its own whose end settles a promise. JavaScript sees {promise, cancel(), progress()}.
#pragma once

#include <napi.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace staghorn {

// What a job's thread throws; it rejects the promise as Node's own errors look.
struct SystemError : std::runtime_error {
  SystemError(int error, const std::string &what) : std::runtime_error(what), error(error) {}
  int error;
};

// Outlives the job, so that a late cancel() of JavaScript finds it.
struct JobControl {
  JobControl();
  ~JobControl();
  void Cancel();
  std::atomic<bool> cancelled{false};
  std::atomic<double> progress{0};
  int cancel_fd;  // readable once cancelled
};

class Job {
 public:
  virtual ~Job() = default;
  // Starts the thread. Must be called on the JavaScript thread.
  static Napi::Value Start(Napi::Env env, std::unique_ptr<Job> job);

  const std::shared_ptr<JobControl> &control() const { return control_; }

 protected:
  virtual void Run() = 0;                               // in the job's thread
  virtual Napi::Value Result(Napi::Env env) = 0;        // in the JavaScript thread, if Run did not throw
  void Keep(Napi::Object object);                       // keeps what the thread reads or writes from being collected
  bool cancelled() const { return control_->cancelled.load(std::memory_order_relaxed); }
  void ThrowIfCancelled() const {
    if (cancelled()) throw SystemError(ECANCELED, "cancelled");
  }

 private:
  static void Settle(napi_env env, napi_value callback, void *context, void *data);
  static void Delete(napi_env env, void *data, void *hint);
  static void StopForTeardown(void *data);
  void ThreadMain();

  std::shared_ptr<JobControl> control_ = std::make_shared<JobControl>();
  std::vector<Napi::ObjectReference> kept_;
  std::unique_ptr<Napi::Promise::Deferred> deferred_;
  napi_threadsafe_function settle_ = nullptr;
  std::thread thread_;
  int error_ = 0;
  std::string what_;
};

// SCHED_FIFO for the calling thread; false where that is not allowed.
bool TryRealtime(int priority);

int64_t Int64Of(const Napi::Value &bigint);
Napi::BigInt BigIntOf(Napi::Env env, int64_t value);

}  // namespace staghorn
