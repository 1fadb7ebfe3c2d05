// What every facility of the addon shares: registration, errno as a JavaScript error, and asynchronous work.
#pragma once

#include <napi.h>

#include <cstdint>
#include <string>

namespace staghorn {

using FacilityInit = void (*)(Napi::Env env, Napi::Object exports);

// A facility registers itself from its own file, so that no file knows all of them.
struct Facility {
  explicit Facility(FacilityInit init);
};

// Throws a JavaScript Error with `code` ("ENOENT"), `errno` and `syscall`, as Node's own errors carry them.
[[noreturn]] void ThrowErrno(Napi::Env env, int error, const std::string &syscall);
Napi::Error ErrnoError(Napi::Env env, int error, const std::string &syscall);

// CLOCK_MONOTONIC in nanoseconds.
int64_t MonotonicNs();

}  // namespace staghorn
