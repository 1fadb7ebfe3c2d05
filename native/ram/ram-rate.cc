#include "ram/ram-rate.h"

#include <algorithm>
#include <memory>

#include "addon.h"

namespace staghorn {

int64_t RateLimit::Spend(uint64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  free_ns_ = std::max(free_ns_, MonotonicNs()) + int64_t(double(bytes) / bytes_per_second_ * 1e9);
  return free_ns_;
}

// createRateLimit(bytesPerSecond): an opaque value for the options of saves.
static Napi::Value CreateRateLimit(const Napi::CallbackInfo &info) {
  auto *limit = new std::shared_ptr<RateLimit>(std::make_shared<RateLimit>(info[0].As<Napi::Number>().DoubleValue()));
  return Napi::External<std::shared_ptr<RateLimit>>::New(
      info.Env(), limit, [](Napi::Env, std::shared_ptr<RateLimit> *owned) { delete owned; });
}

static Facility rate_facility(
    [](Napi::Env env, Napi::Object exports) { exports.Set("createRateLimit", Napi::Function::New<CreateRateLimit>(env)); });

}  // namespace staghorn
