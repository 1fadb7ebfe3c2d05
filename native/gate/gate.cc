// The gate for JavaScript. Counters and the mode are read and written by TypeScript in the mapped state itself.
#include "gate/gate.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "addon.h"
#include "gate/replay.h"

namespace staghorn {

namespace {

constexpr char kStateName[] = "staghorn_state";
constexpr char kRingName[] = "staghorn_ring";
constexpr char kMarkersName[] = "staghorn_marks";
constexpr uint32_t kMarkerRingBytes = 1 << 20;  // some 5,000 markers between two looks

}  // namespace

GateState::GateState(int map, size_t size_bytes)
    : memory_(MapMemoryOf(map, size_bytes, PROT_READ | PROT_WRITE, 0)), size_(size_bytes) {}

GateState::~GateState() { munmap(memory_, size_); }

void BeginAttempt(PortWord &port) {
  Write64(port.attempt, port.returned << 32 | uint32_t(Read64(port.seen) + 1));
}

void EndAttempt(PortWord &port, bool accepted) {
  if (accepted) Write64(port.returned, port.returned + 1);
  Write64(port.attempt, 0);
}

// If a process died between the device's taking a frame and the counting of it, the program has seen the frame.
bool SettleAttempt(PortWord &port) {
  uint64_t expected = port.returned << 32 | uint32_t(Read64(port.seen));
  bool accepted = port.attempt != 0 && port.attempt == expected;
  if (port.attempt != 0) EndAttempt(port, accepted);
  return accepted;
}

namespace {

// Not kept for whoever opens the gate anew: markers are for the process that sent the others of their round.
void OpenMarkers(GateCore &core) {
  core.marker_map = CreateMap(BPF_MAP_TYPE_RINGBUF, kMarkersName, 0, kMarkerRingBytes, 0);
  core.markers = std::make_unique<Ring>(core.marker_map.get(), kMarkerRingBytes);
}

void OpenSenders(GateCore &core) {
  core.past_qdisc = OpenSender(core.state->Host()->mark, true);
  core.through_qdisc = OpenSender(core.state->Host()->mark, false);
}

std::unique_ptr<GateCore> CreateCore(uint32_t slots, uint32_t ring_bytes, uint32_t mark, uint64_t nonce) {
  auto core = std::make_unique<GateCore>();
  // One value, not an array of them: only then may programs use its address as it is.
  size_t size = (size_t(slots) + 1) * sizeof(PortWord);
  core->state_map = CreateMap(BPF_MAP_TYPE_ARRAY, kStateName, uint32_t(size), 1, BPF_F_MMAPABLE);
  core->ring_map = CreateMap(BPF_MAP_TYPE_RINGBUF, kRingName, 0, ring_bytes, 0);
  core->state = std::make_shared<GateState>(core->state_map.get(), size);
  core->ring = std::make_unique<Ring>(core->ring_map.get(), ring_bytes);
  HostWord *host = core->state->Host();
  host->mark = mark;
  host->nonce = nonce;
  host->slots = slots;
  host->counts_inside = 1;
  OpenMarkers(*core);
  OpenSenders(*core);
  return core;
}

std::unique_ptr<GateCore> OpenCore(uint32_t state_id, uint32_t ring_id, uint64_t nonce) {
  auto core = std::make_unique<GateCore>();
  core->state_map = OpenMapById(state_id);
  core->ring_map = OpenMapById(ring_id);
  MapInfo state = ReadMapInfo(core->state_map.get());
  MapInfo ring = ReadMapInfo(core->ring_map.get());
  // Ids are used again after a reboot: these must be a gate's maps, and this gate's.
  bool ours = state.name == kStateName && ring.name == kRingName && ring.type == BPF_MAP_TYPE_RINGBUF;
  if (!ours || state.type != BPF_MAP_TYPE_ARRAY) throw SyscallError{ESTALE, "a map of another kind has the id"};
  core->state = std::make_shared<GateState>(core->state_map.get(), state.value_size);
  if (core->state->Host()->nonce != nonce) throw SyscallError{ESTALE, "another gate has the id"};
  core->ring = std::make_unique<Ring>(core->ring_map.get(), ring.max_entries);
  OpenMarkers(*core);
  OpenSenders(*core);
  for (uint32_t slot = 0; slot < core->state->Slots(); slot++) SettleAttempt(*core->state->Port(slot));
  return core;
}

uint32_t U32(const Napi::Value &value) { return value.As<Napi::Number>().Uint32Value(); }

int64_t I64(const Napi::Value &value) {
  bool lossless;
  return value.As<Napi::BigInt>().Int64Value(&lossless);
}

uint64_t U64(const Napi::Value &value) {
  bool lossless;
  return value.As<Napi::BigInt>().Uint64Value(&lossless);
}

class Gate : public Napi::ObjectWrap<Gate> {
 public:
  static void Register(Napi::Env env, Napi::Object exports) {
    exports.Set("Gate", DefineClass(env, "Gate",
                                    {
                                        InstanceMethod<&Gate::Identity>("identity"),
                                        InstanceMethod<&Gate::Memory>("memory"),
                                        InstanceMethod<&Gate::Load>("loadProgram"),
                                        InstanceMethod<&Gate::Peek>("peek"),
                                        InstanceMethod<&Gate::CountHeld>("countHeld"),
                                        InstanceMethod<&Gate::TakeMarkers>("takeMarkers"),
                                        InstanceMethod<&Gate::Discard>("discard"),
                                        InstanceMethod<&Gate::Reinject>("reinject"),
                                        InstanceMethod<&Gate::Preload>("preload"),
                                        InstanceMethod<&Gate::StartReplay>("replay"),
                                        InstanceMethod<&Gate::Hurry>("hurry"),
                                        InstanceMethod<&Gate::Close>("close"),
                                    }));
  }

  // new Gate(slots, ringBytes, mark, nonce), or new Gate(stateMapId, ringMapId, nonce) for one that exists.
  explicit Gate(const Napi::CallbackInfo &info) : Napi::ObjectWrap<Gate>(info) {
    try {
      if (info.Length() == 4) {
        core_ = CreateCore(U32(info[0]), U32(info[1]), U32(info[2]), U64(info[3]));
      } else {
        core_ = OpenCore(U32(info[0]), U32(info[1]), U64(info[2]));
      }
    } catch (const SyscallError &failure) {
      ThrowErrno(info.Env(), failure.error, failure.syscall);
    }
  }

  ~Gate() override { EndReplay(); }

 private:
  GateCore &Core(const Napi::CallbackInfo &info) {
    if (!core_) ThrowErrno(info.Env(), EBADF, "the gate is closed");
    return *core_;
  }

  // The ring's consumer position has one owner.
  GateCore &IdleCore(const Napi::CallbackInfo &info) {
    if (replay_) ThrowErrno(info.Env(), EBUSY, "the gate replays");
    return Core(info);
  }

  Napi::Value Identity(const Napi::CallbackInfo &info) {
    GateCore &core = Core(info);
    Napi::Object identity = Napi::Object::New(info.Env());
    try {
      identity.Set("stateMapId", Napi::Number::New(info.Env(), ReadMapInfo(core.state_map.get()).id));
      identity.Set("ringMapId", Napi::Number::New(info.Env(), ReadMapInfo(core.ring_map.get()).id));
    } catch (const SyscallError &failure) {
      ThrowErrno(info.Env(), failure.error, failure.syscall);
    }
    identity.Set("nonce", Napi::BigInt::New(info.Env(), core.state->Host()->nonce));
    return identity;
  }

  Napi::Value Memory(const Napi::CallbackInfo &info) {
    GateCore &core = Core(info);
    auto *kept = new std::shared_ptr<GateState>(core.state);
    return Napi::ArrayBuffer::New(
        info.Env(), core.state->Memory(), core.state->SizeBytes(),
        [](Napi::Env, void *, std::shared_ptr<GateState> *state) { delete state; }, kept);
  }

  // loadProgram(slot, egress): a descriptor of the port's program.
  Napi::Value Load(const Napi::CallbackInfo &info) {
    ProgramKind kind = info[1].As<Napi::Boolean>().Value() ? ProgramKind::Egress : ProgramKind::Tap;
    try {
      return Napi::Number::New(info.Env(), LoadGateProgram(Core(info), kind, U32(info[0])).release());
    } catch (const SyscallError &failure) {
      ThrowErrno(info.Env(), failure.error, failure.syscall);
    }
  }

  // peek(position | null, maxBytes): {records, position, more}. Consumes nothing; position is where to go on.
  Napi::Value Peek(const Napi::CallbackInfo &info) {
    GateCore &core = IdleCore(info);
    Napi::Env env = info.Env();
    uint64_t position = info[0].IsBigInt() ? U64(info[0]) : core.ring->ConsumerPosition();
    size_t left = U32(info[1]);
    Napi::Array records = Napi::Array::New(env);
    auto record = core.ring->At(position);
    for (; record && left > 0; record = core.ring->At(position)) {
      position = record->end;
      const RecordHeader *header = record->header;
      if (!header || header->slot >= core.state->Slots()) continue;
      if (header->seq < Read64(core.state->Port(header->slot)->returned)) continue;
      left -= std::min<size_t>(left, header->length);
      records.Set(records.Length(), Describe(env, *header, record->bytes));
    }
    Napi::Object page = Napi::Object::New(env);
    page.Set("records", records);
    page.Set("position", Napi::BigInt::New(env, position));
    page.Set("more", Napi::Boolean::New(env, record.has_value()));
    return page;
  }

  static Napi::Object Describe(Napi::Env env, const RecordHeader &header, const uint8_t *bytes) {
    std::vector<uint8_t> frame = Flatten(ViewOf(header, bytes));
    Napi::Object record = Napi::Object::New(env);
    record.Set("slot", Napi::Number::New(env, header.slot));
    record.Set("seq", Napi::BigInt::New(env, header.seq));
    record.Set("atNs", Napi::BigInt::New(env, int64_t(header.at_ns)));
    record.Set("gsoSize", Napi::Number::New(env, header.gso_size));
    record.Set("frame", Napi::Buffer<uint8_t>::Copy(env, frame.data(), frame.size()));
    return record;
  }

  // countHeld(): for each slot, how many frames are in the ring or preloaded, and not yet returned.
  Napi::Value CountHeld(const Napi::CallbackInfo &info) {
    GateCore &core = IdleCore(info);
    uint32_t slots = core.state->Slots();
    auto counts = Napi::Uint32Array::New(info.Env(), slots);
    for (auto &[slot, frames] : core.preloaded) counts[slot] += uint32_t(frames.size());
    uint64_t position = core.ring->ConsumerPosition();
    while (auto record = core.ring->At(position)) {
      position = record->end;
      const RecordHeader *header = record->header;
      if (!header || header->slot >= slots) continue;
      if (header->seq >= Read64(core.state->Port(header->slot)->returned)) counts[header->slot]++;
    }
    return counts;
  }

  // takeMarkers(): those that came since the last look, in order. They are forgotten.
  Napi::Value TakeMarkers(const Napi::CallbackInfo &info) {
    Ring &ring = *Core(info).markers;
    Napi::Array records = Napi::Array::New(info.Env());
    uint64_t position = ring.ConsumerPosition();
    while (auto record = ring.At(position)) {
      position = record->end;
      if (record->header) records.Set(records.Length(), Describe(info.Env(), *record->header, record->bytes));
    }
    ring.Release(position);
    return records;
  }

  // reinject(ifindex, [{gsoSize, frame}]): puts frames into a device now, past the gate; returns how many it took.
  Napi::Value Reinject(const Napi::CallbackInfo &info) {
    GateCore &core = IdleCore(info);
    auto frames = info[1].As<Napi::Array>();
    uint32_t taken = 0;
    for (; taken < frames.Length(); taken++) {
      Napi::Object frame = frames.Get(taken).As<Napi::Object>();
      auto bytes = frame.Get("frame").As<Napi::Buffer<uint8_t>>();
      FrameView view{bytes.Data(), uint32_t(bytes.Length()), U32(frame.Get("gsoSize")), false, {}};
      if (SendFrame(core.past_qdisc.get(), info[0].As<Napi::Number>().Int32Value(), view) != 0) break;
    }
    return Napi::Number::New(info.Env(), taken);
  }

  // Drops what is held at this moment, preloaded frames as well. What comes meanwhile may go with it.
  Napi::Value Discard(const Napi::CallbackInfo &info) {
    GateCore &core = IdleCore(info);
    std::vector<uint64_t> end(core.state->Slots());
    for (uint32_t slot = 0; slot < end.size(); slot++) end[slot] = Read64(core.state->Port(slot)->diverted);
    uint64_t limit = core.ring->ProducerPosition();
    uint64_t position = core.ring->ConsumerPosition();
    while (position < limit) {
      auto record = core.ring->At(position);
      if (!record) continue;  // being written, by a processor that cannot be interrupted there for long
      position = record->end;
      const RecordHeader *header = record->header;
      if (header && header->slot < end.size()) end[header->slot] = std::max(end[header->slot], header->seq + 1);
    }
    core.ring->Release(position);
    core.preloaded.clear();
    for (uint32_t slot = 0; slot < end.size(); slot++) Write64(core.state->Port(slot)->returned, end[slot]);
    return info.Env().Undefined();
  }

  // preload(slot, [{offsetNs, gsoSize, frame}]): the frames line up behind what the port holds already.
  Napi::Value Preload(const Napi::CallbackInfo &info) {
    GateCore &core = IdleCore(info);
    uint32_t slot = U32(info[0]);
    auto frames = info[1].As<Napi::Array>();
    uint32_t count = frames.Length();
    std::vector<PreloadedFrame> made;
    for (uint32_t i = 0; i < count; i++) {
      Napi::Object frame = frames.Get(i).As<Napi::Object>();
      auto bytes = frame.Get("frame").As<Napi::Buffer<uint8_t>>();
      made.push_back({0, I64(frame.Get("offsetNs")), U32(frame.Get("gsoSize")), {bytes.Data(), bytes.Data() + bytes.Length()}});
    }
    uint64_t seq = __atomic_fetch_add(&core.state->Port(slot)->diverted, count, __ATOMIC_SEQ_CST);
    std::vector<PreloadedFrame> &kept = core.preloaded[slot];
    for (PreloadedFrame &frame : made) {
      frame.seq = seq++;
      kept.push_back(std::move(frame));
    }
    return info.Env().Undefined();
  }

  static ReplayOptions ReadOptions(Napi::Object options) {
    ReplayOptions read{{}, I64(options.Get("liveFromNs")), I64(options.Get("giveUpAfterNs"))};
    auto ports = options.Get("ports").As<Napi::Array>();
    for (uint32_t i = 0; i < ports.Length(); i++) {
      Napi::Object port = ports.Get(i).As<Napi::Object>();
      read.ports.push_back({U32(port.Get("slot")), port.Get("ifindex").As<Napi::Number>().Int32Value(),
                            port.Get("bypassQdisc").As<Napi::Boolean>().Value(), U32(port.Get("receiveMtu")), I64(port.Get("shiftNs")),
                            I64(port.Get("notBeforeNs"))});
    }
    return read;
  }

  // replay({ports, liveFromNs, giveUpAfterNs}): a promise of what became of the frames.
  Napi::Value StartReplay(const Napi::CallbackInfo &info) {
    IdleCore(info);
    Napi::Env env = info.Env();
    try {
      replay_ = std::make_shared<Replay>(core_, ReadOptions(info[0].As<Napi::Object>()));
    } catch (const SyscallError &failure) {
      ThrowErrno(env, failure.error, failure.syscall);
    }
    auto deferred = Napi::Promise::Deferred::New(env);
    auto nothing = Napi::Function::New(env, [](const Napi::CallbackInfo &) {});
    auto finish = Napi::ThreadSafeFunction::New(env, nothing, "staghorn.replay", 0, 1);
    Ref();  // not collected while its thread runs
    thread_ = std::thread([this, replay = replay_, finish, deferred]() mutable {
      ReplayResult result = replay->Run();
      finish.BlockingCall([this, deferred, result](Napi::Env js, Napi::Function) {
        EndReplay();
        Unref();
        deferred.Resolve(DescribeResult(js, result));
      });
      finish.Release();
    });
    return deferred.Promise();
  }

  static Napi::Object DescribeResult(Napi::Env env, const ReplayResult &result) {
    Napi::Object described = Napi::Object::New(env);
    Napi::Array ports = Napi::Array::New(env);
    for (const PortReplay &port : result.ports) {
      Napi::Object entry = Napi::Object::New(env);
      entry.Set("slot", Napi::Number::New(env, port.slot));
      entry.Set("delivered", Napi::Number::New(env, double(port.delivered)));
      entry.Set("preloaded", Napi::Number::New(env, double(port.preloaded)));
      entry.Set("undeliverable", Napi::Number::New(env, double(port.undeliverable)));
      entry.Set("missing", Napi::Number::New(env, double(port.missing)));
      entry.Set("lastErrno", Napi::Number::New(env, port.last_error));
      ports.Set(ports.Length(), entry);
    }
    Napi::Object lateness = Napi::Object::New(env);
    lateness.Set("count", Napi::Number::New(env, double(result.timed)));
    lateness.Set("median", Napi::Number::New(env, double(result.median_ns)));
    lateness.Set("p99", Napi::Number::New(env, double(result.p99_ns)));
    lateness.Set("max", Napi::Number::New(env, double(result.max_ns)));
    described.Set("ports", ports);
    described.Set("latenessNs", lateness);
    described.Set("hurried", Napi::Boolean::New(env, result.hurried));
    described.Set("errno", Napi::Number::New(env, result.error));
    return described;
  }

  Napi::Value Hurry(const Napi::CallbackInfo &info) {
    if (replay_) replay_->Hurry();
    return info.Env().Undefined();
  }

  // Lets go of the maps. Programs that are attached keep them, and what they hold, alive.
  Napi::Value Close(const Napi::CallbackInfo &info) {
    if (replay_) replay_->Stop();
    if (thread_.joinable()) thread_.join();
    core_.reset();
    return info.Env().Undefined();
  }

  void EndReplay() {
    if (replay_) replay_->Stop();
    if (thread_.joinable()) thread_.join();
    replay_.reset();
  }

  std::shared_ptr<GateCore> core_;
  std::shared_ptr<Replay> replay_;
  std::thread thread_;
};

Facility facility([](Napi::Env env, Napi::Object exports) { Gate::Register(env, exports); });

}  // namespace

}  // namespace staghorn
