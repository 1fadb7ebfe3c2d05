// The BPF programs of this machine, each with the maps that it uses: whose a program is, its maps tell.
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "addon.h"
#include "gate/bpf.h"

namespace staghorn {

namespace {

constexpr uint32_t kMapsMax = 64;

int Bpf(bpf_cmd command, bpf_attr &attr) { return int(syscall(__NR_bpf, command, &attr, sizeof attr)); }

Napi::Object Describe(Napi::Env env, int program) {
  uint32_t maps[kMapsMax] = {};
  bpf_prog_info info{};
  info.nr_map_ids = kMapsMax;
  info.map_ids = reinterpret_cast<uintptr_t>(maps);
  bpf_attr attr{};
  attr.info.bpf_fd = uint32_t(program);
  attr.info.info_len = sizeof info;
  attr.info.info = reinterpret_cast<uintptr_t>(&info);
  if (Bpf(BPF_OBJ_GET_INFO_BY_FD, attr) < 0) ThrowErrno(env, errno, "bpf(OBJ_GET_INFO_BY_FD)");
  Napi::Object described = Napi::Object::New(env);
  Napi::Array ids = Napi::Array::New(env);
  for (uint32_t i = 0; i < info.nr_map_ids && i < kMapsMax; i++) ids.Set(i, Napi::Number::New(env, maps[i]));
  described.Set("id", Napi::Number::New(env, info.id));
  described.Set("name", Napi::String::New(env, info.name));
  described.Set("mapIds", ids);
  return described;
}

// readPrograms(): [{id, name, mapIds}].
Napi::Value ReadPrograms(const Napi::CallbackInfo &info) {
  Napi::Array programs = Napi::Array::New(info.Env());
  bpf_attr next{};
  while (Bpf(BPF_PROG_GET_NEXT_ID, next) == 0) {
    uint32_t id = next.next_id;
    bpf_attr open{};
    open.prog_id = id;
    Descriptor program(Bpf(BPF_PROG_GET_FD_BY_ID, open));
    if (program.get() >= 0) programs.Set(programs.Length(), Describe(info.Env(), program.get()));
    next = {};
    next.start_id = id;
  }
  if (errno != ENOENT) ThrowErrno(info.Env(), errno, "bpf(PROG_GET_NEXT_ID)");
  return programs;
}

// hasMap(id).
Napi::Value HasMap(const Napi::CallbackInfo &info) {
  try {
    OpenMapById(info[0].As<Napi::Number>().Uint32Value());
    return Napi::Boolean::New(info.Env(), true);
  } catch (const SyscallError &failure) {
    if (failure.error == ENOENT) return Napi::Boolean::New(info.Env(), false);
    ThrowErrno(info.Env(), failure.error, failure.syscall);
  }
}

Facility facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("readPrograms", Napi::Function::New(env, ReadPrograms));
  exports.Set("hasMap", Napi::Function::New(env, HasMap));
});

}  // namespace

}  // namespace staghorn
