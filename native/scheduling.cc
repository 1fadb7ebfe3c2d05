// The scheduling class of the calling thread: JavaScript's own, which the addon's other threads do not touch.

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "addon.h"

namespace staghorn {

// struct sched_attr of include/uapi/linux/sched/types.h; glibc 2.36 has none.
struct SchedAttr {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};
static constexpr uint64_t SCHED_FLAG_RESET_ON_FORK = 1;

// True if the thread has the priority now. Its children and the threads it starts stay ordinary.
static Napi::Value SetRealtimePriority(const Napi::CallbackInfo &info) {
  int priority = info[0].As<Napi::Number>().Int32Value();
  sched_param param = {};
  param.sched_priority = priority;
  int policy = priority > 0 ? SCHED_RR | SCHED_RESET_ON_FORK : SCHED_OTHER;
  return Napi::Boolean::New(info.Env(), sched_setscheduler(0, policy, &param) == 0);
}

// setSlice(thread, ns): the slice of an ordinary thread (sched_attr::sched_runtime, kernel 6.12); 0: the kernel's own.
// Its policy and nice value stay. Returns whether the kernel took it.
static Napi::Value SetSlice(const Napi::CallbackInfo &info) {
  pid_t thread = info[0].As<Napi::Number>().Int32Value();
  SchedAttr attr{};
  attr.size = sizeof attr;
  if (syscall(SYS_sched_getattr, thread, &attr, sizeof attr, 0) < 0) return Napi::Boolean::New(info.Env(), false);
  if (attr.policy != SCHED_OTHER && attr.policy != SCHED_BATCH) return Napi::Boolean::New(info.Env(), false);
  attr.flags &= SCHED_FLAG_RESET_ON_FORK;
  attr.runtime = uint64_t(info[1].As<Napi::Number>().Int64Value());
  return Napi::Boolean::New(info.Env(), syscall(SYS_sched_setattr, thread, &attr, 0) == 0);
}

static void InitScheduling(Napi::Env env, Napi::Object exports) {
  exports.Set("setSlice", Napi::Function::New(env, SetSlice));
  exports.Set("setRealtimePriority", Napi::Function::New(env, SetRealtimePriority));
}

static Facility scheduling(InitScheduling);

}  // namespace staghorn
