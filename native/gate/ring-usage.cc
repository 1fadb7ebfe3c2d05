// How full a BPF ring buffer is, read from its two position pages without touching what it holds.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "addon.h"
#include "gate/bpf.h"

namespace staghorn {

namespace {

// The first page of each is its position (kernel/bpf/ringbuf.c, struct bpf_ringbuf); a process may map them alone.
uint64_t PositionAt(int map, off_t offset, int protection) {
  size_t page = size_t(sysconf(_SC_PAGESIZE));
  void *memory = mmap(nullptr, page, protection, MAP_SHARED, map, offset);
  if (memory == MAP_FAILED) throw SyscallError{errno, "mmap(ring)"};
  uint64_t position = __atomic_load_n(static_cast<uint64_t *>(memory), __ATOMIC_ACQUIRE);
  munmap(memory, page);
  return position;
}

// ringUsage(ringMapId): {usedBytes, sizeBytes}.
Napi::Value RingUsage(const Napi::CallbackInfo &info) {
  Napi::Object usage = Napi::Object::New(info.Env());
  try {
    Descriptor map = OpenMapById(info[0].As<Napi::Number>().Uint32Value());
    // The consumer first: what is written meanwhile counts, what is released meanwhile does not yet.
    uint64_t consumed = PositionAt(map.get(), 0, PROT_READ | PROT_WRITE);
    uint64_t produced = PositionAt(map.get(), sysconf(_SC_PAGESIZE), PROT_READ);
    usage.Set("usedBytes", Napi::Number::New(info.Env(), double(produced - consumed)));
    usage.Set("sizeBytes", Napi::Number::New(info.Env(), ReadMapInfo(map.get()).max_entries));
  } catch (const SyscallError &failure) {
    ThrowErrno(info.Env(), failure.error, failure.syscall);
  }
  return usage;
}

Facility facility([](Napi::Env env, Napi::Object exports) { exports.Set("ringUsage", Napi::Function::New(env, RingUsage)); });

}  // namespace

}  // namespace staghorn
