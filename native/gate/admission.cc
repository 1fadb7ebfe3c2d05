// Letting frames in again at the receive side of a device, and the edge's programs for JavaScript.
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "addon.h"
#include "gate/edge.h"

namespace staghorn {

// The kernel builds a packet around the bytes and receives it on the device, in this very call
// (Documentation/bpf/bpf_prog_run.rst, "Running XDP programs in live frame mode").
int AdmitFrame(int admission, const GateState &state, int ifindex, const std::vector<uint8_t> &frame) {
  if (frame.size() > kAdmittedBytesMax) return EMSGSIZE;
  xdp_md context{};
  context.data_end = uint32_t(frame.size());
  context.ingress_ifindex = uint32_t(ifindex);
  bpf_attr attr{};
  attr.test.prog_fd = uint32_t(admission);
  attr.test.data_in = reinterpret_cast<uintptr_t>(frame.data());
  attr.test.data_size_in = uint32_t(frame.size());
  attr.test.ctx_in = reinterpret_cast<uintptr_t>(&context);
  attr.test.ctx_size_in = sizeof context;
  attr.test.repeat = 1;
  attr.test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
  attr.test.batch_size = 1;
  int result;
  do result = int(syscall(__NR_bpf, BPF_PROG_TEST_RUN, &attr, sizeof attr));
  while (result < 0 && errno == EINTR);
  if (result < 0) return errno;
  // Still there: the edge's program did not run on it here. Receive packet steering takes frames to other
  // processors; without the edge's program (somebody replaced it) frames just pass.
  uint32_t left = __atomic_exchange_n(&state.Host()->admitting, 0, __ATOMIC_SEQ_CST);
  return left == 0 ? 0 : ESTALE;
}

namespace {

uint32_t U32(const Napi::Value &value) { return value.As<Napi::Number>().Uint32Value(); }

// loadEdgeProgram(stateMapId, ringMapId, slot, drop): a descriptor of the port's program.
Napi::Value LoadEdge(const Napi::CallbackInfo &info) {
  try {
    Descriptor state = OpenMapById(U32(info[0])), ring = OpenMapById(U32(info[1]));
    EdgePolicy policy = info[3].As<Napi::Boolean>().Value() ? EdgePolicy::Drop : EdgePolicy::Hold;
    return Napi::Number::New(info.Env(), LoadEdgeProgram(state.get(), ring.get(), policy, U32(info[2])).release());
  } catch (const SyscallError &failure) {
    ThrowErrno(info.Env(), failure.error, failure.syscall);
  }
}

// probeEdge(stateMapId, ifindex, frame): sends a frame of ours the way of all that are let in again; the edge's
// program drops it. Throws what the kernel says, or ESTALE if the program did not get to see it.
Napi::Value ProbeEdge(const Napi::CallbackInfo &info) {
  auto frame = info[2].As<Napi::Buffer<uint8_t>>();
  try {
    Descriptor map = OpenMapById(U32(info[0]));
    GateState state(map.get(), ReadMapInfo(map.get()).value_size);
    Descriptor probe = LoadAdmission(map.get(), true);
    int error = AdmitFrame(probe.get(), state, info[1].As<Napi::Number>().Int32Value(),
                           {frame.Data(), frame.Data() + frame.Length()});
    if (error != 0) throw SyscallError{error, "bpf(PROG_TEST_RUN)"};
  } catch (const SyscallError &failure) {
    ThrowErrno(info.Env(), failure.error, failure.syscall);
  }
  return info.Env().Undefined();
}

Facility facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("loadEdgeProgram", Napi::Function::New(env, LoadEdge));
  exports.Set("probeEdge", Napi::Function::New(env, ProbeEdge));
  exports.Set("admittedBytesMax", Napi::Number::New(env, kAdmittedBytesMax));
});

}  // namespace

}  // namespace staghorn
