// Writes into another process's memory.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "addon.h"
#include "descriptor.h"
#include "job.h"

namespace staghorn {

static Napi::Value WriteProcessMemory(const Napi::CallbackInfo &info) {
  std::string path = "/proc/" + std::to_string(info[0].As<Napi::Number>().Int32Value()) + "/mem";
  uint64_t address = uint64_t(Int64Of(info[1]));
  Napi::Uint8Array bytes = info[2].As<Napi::Uint8Array>();
  int memory = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (memory < 0) ThrowErrno(info.Env(), errno, "open " + path);
  Descriptor owner(memory);
  for (size_t done = 0; done < bytes.ByteLength();) {
    ssize_t put = pwrite(memory, bytes.Data() + done, bytes.ByteLength() - done, off_t(address + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) ThrowErrno(info.Env(), put < 0 ? errno : ESRCH, "write " + path);
    done += size_t(put);
  }
  return info.Env().Undefined();
}

static Facility process_memory_facility(
    [](Napi::Env env, Napi::Object exports) { exports.Set("writeMemory", Napi::Function::New<WriteProcessMemory>(env)); });

}  // namespace staghorn
