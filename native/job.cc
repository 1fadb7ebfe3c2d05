#include "job.h"

#include <sched.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "addon.h"

namespace staghorn {

JobControl::JobControl() : cancel_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

JobControl::~JobControl() {
  if (cancel_fd >= 0) close(cancel_fd);
}

void JobControl::Cancel() {
  cancelled.store(true);
  uint64_t one = 1;
  if (write(cancel_fd, &one, sizeof one) < 0) return;  // the counter can only be full, and then it is readable too
}

void Job::Keep(Napi::Object object) { kept_.push_back(Napi::Persistent(object)); }

Napi::Value Job::Start(Napi::Env env, std::unique_ptr<Job> owned) {
  if (owned->control_->cancel_fd < 0) ThrowErrno(env, errno, "eventfd");
  Job *job = owned.get();
  job->deferred_ = std::make_unique<Napi::Promise::Deferred>(env);
  napi_status status = napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "staghorn job"), 0, 1,
                                                       job, Delete, job, Settle, &job->settle_);
  if (status != napi_ok) throw Napi::Error::New(env, "cannot create a thread-safe function");
  owned.release();  // from here on the thread-safe function's finalizer deletes it
  // Added after the thread-safe function's own hook, so it runs before that (hooks run last in, first out).
  napi_add_env_cleanup_hook(env, StopForTeardown, job);

  Napi::Object handle = Napi::Object::New(env);
  std::shared_ptr<JobControl> control = job->control_;
  handle.Set("promise", job->deferred_->Promise());
  handle.Set("cancel", Napi::Function::New(env, [control](const Napi::CallbackInfo &) { control->Cancel(); }));
  handle.Set("progress", Napi::Function::New(env, [control](const Napi::CallbackInfo &info) {
               return Napi::Number::New(info.Env(), control->progress.load(std::memory_order_relaxed));
             }));
  job->thread_ = std::thread([job] { job->ThreadMain(); });
  return handle;
}

void Job::ThreadMain() {
  try {
    Run();
  } catch (const SystemError &error) {
    error_ = error.error;
    what_ = error.what();
  } catch (const std::bad_alloc &) {
    error_ = ENOMEM;
    what_ = "allocation";
  }
  napi_call_threadsafe_function(settle_, nullptr, napi_tsfn_blocking);
}

void Job::Settle(napi_env raw, napi_value, void *context, void *) {
  Job *job = static_cast<Job *>(context);
  if (job->thread_.joinable()) job->thread_.join();
  if (raw != nullptr) {
    Napi::Env env(raw);
    Napi::HandleScope scope(env);
    napi_remove_env_cleanup_hook(raw, StopForTeardown, job);
    if (job->error_ != 0) {
      job->deferred_->Reject(ErrnoError(env, job->error_, job->what_).Value());
    } else {
      try {
        job->deferred_->Resolve(job->Result(env));
      } catch (const Napi::Error &error) {
        job->deferred_->Reject(error.Value());
      }
    }
  }
  napi_release_threadsafe_function(job->settle_, napi_tsfn_release);
}

void Job::Delete(napi_env, void *data, void *) { delete static_cast<Job *>(data); }

// The memory that the thread works on dies with the environment: nothing may touch it afterwards.
void Job::StopForTeardown(void *data) {
  Job *job = static_cast<Job *>(data);
  job->control_->Cancel();
  if (job->thread_.joinable()) job->thread_.join();
}

bool TryRealtime(int priority) {
  sched_param param = {};
  param.sched_priority = priority;
  return sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &param) == 0;
}

int64_t Int64Of(const Napi::Value &value) {
  bool lossless = false;
  return value.As<Napi::BigInt>().Int64Value(&lossless);
}

Napi::BigInt BigIntOf(Napi::Env env, int64_t value) { return Napi::BigInt::New(env, value); }

}  // namespace staghorn
