// The scheduling class of the calling thread: JavaScript's own, which the addon's other threads do not touch.

#include <sched.h>

#include <cerrno>

#include "addon.h"

namespace staghorn {

// True if the thread has the priority now. Its children and the threads it starts stay ordinary.
static Napi::Value SetRealtimePriority(const Napi::CallbackInfo &info) {
  int priority = info[0].As<Napi::Number>().Int32Value();
  sched_param param = {};
  param.sched_priority = priority;
  int policy = priority > 0 ? SCHED_RR | SCHED_RESET_ON_FORK : SCHED_OTHER;
  return Napi::Boolean::New(info.Env(), sched_setscheduler(0, policy, &param) == 0);
}

static void InitScheduling(Napi::Env env, Napi::Object exports) {
  exports.Set("setRealtimePriority", Napi::Function::New(env, SetRealtimePriority));
}

static Facility scheduling(InitScheduling);

}  // namespace staghorn
