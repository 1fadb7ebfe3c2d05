// A program that drops every frame: it closes a tap whose VM is still to come.
#include "addon.h"
#include "gate/bpf.h"

namespace staghorn {

// loadPlug(): a descriptor of the program, for whoever attaches it to a tap.
static Napi::Value LoadPlug(const Napi::CallbackInfo &info) {
  try {
    Assembler program;
    program.MoveImm(BPF_REG_0, 0);
    program.Exit();
    return Napi::Number::New(info.Env(), LoadProgram(BPF_PROG_TYPE_SOCKET_FILTER, "staghorn_plug", program.Finish()).release());
  } catch (const SyscallError &failure) {
    ThrowErrno(info.Env(), failure.error, failure.syscall);
  }
}

static Facility facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("loadPlug", Napi::Function::New(env, LoadPlug));
});

}  // namespace staghorn
