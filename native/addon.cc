#include "addon.h"

#include <ctime>
#include <cstring>
#include <vector>

namespace staghorn {

static std::vector<FacilityInit> &Facilities() {
  static std::vector<FacilityInit> facilities;
  return facilities;
}

Facility::Facility(FacilityInit init) { Facilities().push_back(init); }

Napi::Error ErrnoError(Napi::Env env, int error, const std::string &syscall) {
  const char *name = strerrorname_np(error);
  std::string code = name ? name : "EUNKNOWN";
  Napi::Error js = Napi::Error::New(env, syscall + ": " + strerror(error) + " (" + code + ")");
  js.Set("code", Napi::String::New(env, code));
  js.Set("errno", Napi::Number::New(env, error));
  js.Set("syscall", Napi::String::New(env, syscall));
  return js;
}

void ThrowErrno(Napi::Env env, int error, const std::string &syscall) { throw ErrnoError(env, error, syscall); }

int64_t MonotonicNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

static Napi::Object Init(Napi::Env env, Napi::Object exports) {
  for (FacilityInit init : Facilities()) init(env, exports);
  return exports;
}

}  // namespace staghorn

static Napi::Object InitAddon(Napi::Env env, Napi::Object exports) { return staghorn::Init(env, exports); }

NODE_API_MODULE(staghorn, InitAddon)
