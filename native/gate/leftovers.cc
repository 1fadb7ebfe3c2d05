// Leftovers for JavaScript: the journal, and the way of its frames back into their taps.
#include "gate/leftovers.h"

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "addon.h"
#include "gate/gate.h"
#include "job.h"

namespace staghorn {

namespace {

constexpr long kRetryNs = 100000;

struct GateView {
  HostWord *host;
  PortWord &Port(uint32_t slot) const { return reinterpret_cast<PortWord *>(host)[1 + slot]; }
  bool Has(uint32_t slot) const { return slot < host->slots; }
};

GateView GateViewOf(Napi::Value state) { return {static_cast<HostWord *>(state.As<Napi::ArrayBuffer>().Data())}; }

uint64_t AttemptOf(uint64_t number, uint64_t seen) { return (number + 1) << 32 | uint32_t(seen); }

// A process died while it gave a frame back: the gate's program has seen it come by, or it has not.
void SettleAttempt(LeftoverJournal &journal, const GateView &gate) {
  LeftoverHead &head = journal.head();
  const LeftoverRecord *record = journal.First();
  for (uint64_t i = 0; i < head.returned && i < head.count; i++) record = LeftoverJournal::After(record);
  if (head.returned < head.count && gate.Has(record->port)) {
    uint64_t before = head.attempt;
    bool current = before >> 32 == ((head.returned + 1) & UINT32_MAX);
    if (current && before != AttemptOf(head.returned, Read64(gate.Port(record->port).seen))) Write64(head.returned, head.returned + 1);
  }
  Write64(head.attempt, 0);
}

// With the offload data that the frame had in the ring. A packet socket takes the first 10 bytes of a virtio-net
// header; what a longer one has beyond is about receive buffers (include/uapi/linux/virtio_net.h).
int SendRecord(int socket, int ifindex, const LeftoverRecord &record) {
  OffloadHeader offload{};
  if (record.header_bytes >= sizeof offload) memcpy(&offload, record.header, sizeof offload);
  uint8_t *frame = const_cast<uint8_t *>(LeftoverJournal::FrameOf(&record));
  iovec parts[2] = {{&offload, sizeof offload}, {frame, record.length}};
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = ifindex;
  to.sll_halen = ETH_ALEN;
  memcpy(to.sll_addr, frame, record.length < ETH_ALEN ? record.length : ETH_ALEN);
  msghdr message{};
  message.msg_name = &to;
  message.msg_namelen = sizeof to;
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  for (;;) {
    if (sendmsg(socket, &message, MSG_DONTWAIT) >= 0) return 0;
    if (errno != EINTR) return errno;
  }
}

std::shared_ptr<Descriptor> SenderOf(Napi::Value journal);

class GiveBackJob : public Job {
 public:
  explicit GiveBackJob(Napi::Object options)
      : journal_(JournalOf(options.Get("journal"))), gate_(GateViewOf(options.Get("state"))), sender_(SenderOf(options.Get("journal"))) {
    Keep(options);
    give_up_after_ns_ = options.Get("giveUpAfterNs").As<Napi::Number>().Int64Value();
    Napi::Array ports = options.Get("ports").As<Napi::Array>();
    for (uint32_t i = 0; i < ports.Length(); i++) {
      Napi::Object port = ports.Get(i).As<Napi::Object>();
      ifindexes_[port.Get("port").As<Napi::Number>().Uint32Value()] = port.Get("ifindex").As<Napi::Number>().Int32Value();
    }
  }

 protected:
  void Run() override {
    if (setsockopt(sender_->get(), SOL_SOCKET, SO_MARK, &gate_.host->mark, sizeof gate_.host->mark) < 0) {
      throw SystemError(errno, "setsockopt(SO_MARK)");
    }
    LeftoverHead &head = journal_->head();
    const LeftoverRecord *record = journal_->First();
    for (uint64_t i = 0; i < head.count; i++, record = LeftoverJournal::After(record)) {
      if (i >= head.returned) GiveBack(*record, i);
    }
  }

  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    result.Set("delivered", Napi::Number::New(env, double(delivered_)));
    result.Set("refused", Napi::Number::New(env, double(refused_)));
    result.Set("lastErrno", Napi::Number::New(env, last_error_));
    return result;
  }

 private:
  void GiveBack(const LeftoverRecord &record, uint64_t number) {
    auto found = ifindexes_.find(record.port);
    int error = found == ifindexes_.end() || !gate_.Has(record.port) ? ENODEV : Deliver(record, number, found->second);
    if (error == 0) {
      delivered_++;
    } else {
      refused_++;
      last_error_ = error;
    }
    Write64(journal_->head().returned, number + 1);
    Write64(journal_->head().attempt, 0);
  }

  // A full ring is waited for: its VM reads it when it goes on.
  int Deliver(const LeftoverRecord &record, uint64_t number, int ifindex) {
    int64_t end_ns = MonotonicNs() + give_up_after_ns_;
    for (;;) {
      Write64(journal_->head().attempt, AttemptOf(number, Read64(gate_.Port(record.port).seen)));
      int error = SendRecord(sender_->get(), ifindex, record);
      if (error == 0) return 0;
      Write64(journal_->head().attempt, 0);
      bool full = error == ENOBUFS || error == EAGAIN || error == ENOMEM;
      if (!full || MonotonicNs() >= end_ns) return error;
      timespec pause = {0, kRetryNs};
      nanosleep(&pause, nullptr);
    }
  }

  std::shared_ptr<LeftoverJournal> journal_;
  GateView gate_;
  std::shared_ptr<Descriptor> sender_;
  int64_t give_up_after_ns_;
  std::map<uint32_t, int> ifindexes_;
  uint64_t delivered_ = 0, refused_ = 0;
  int last_error_ = 0;
};

class JournalObject : public Napi::ObjectWrap<JournalObject> {
 public:
  static void Register(Napi::Env env, Napi::Object exports) {
    exports.Set("LeftoverJournal", DefineClass(env, "LeftoverJournal",
                                               {
                                                   InstanceMethod<&JournalObject::Settle>("settle"),
                                                   InstanceMethod<&JournalObject::Counts>("counts"),
                                                   InstanceMethod<&JournalObject::Frames>("frames"),
                                                   InstanceMethod<&JournalObject::ReadRings>("readRings"),
                                                   InstanceMethod<&JournalObject::Close>("close"),
                                               }));
  }

  // new LeftoverJournal(fd, nonce, bytes | null): made with so many bytes, or opened as it was left.
  explicit JournalObject(const Napi::CallbackInfo &info) : Napi::ObjectWrap<JournalObject>(info) {
    int fd = info[0].As<Napi::Number>().Int32Value();
    bool lossless;
    uint64_t nonce = info[1].As<Napi::BigInt>().Uint64Value(&lossless);
    try {
      journal_ = std::make_shared<LeftoverJournal>(
          info[2].IsNull() ? LeftoverJournal::Open(fd, nonce)
                           : LeftoverJournal::Create(fd, size_t(info[2].As<Napi::Number>().Int64Value()), nonce));
      sender_ = std::make_shared<Descriptor>(OpenSender(0, true));
    } catch (const SystemError &failure) {
      ThrowErrno(info.Env(), failure.error, failure.what());
    } catch (const SyscallError &failure) {
      ThrowErrno(info.Env(), failure.error, failure.syscall);
    }
  }

  std::shared_ptr<LeftoverJournal> journal_;
  // Opened with the journal: the network namespace that the process is in then is that of the taps.
  std::shared_ptr<Descriptor> sender_;

 private:
  LeftoverJournal &Journal(const Napi::CallbackInfo &info) {
    if (!journal_) ThrowErrno(info.Env(), EBADF, "the journal is closed");
    return *journal_;
  }

  // settle(state): finishes what a dead process was giving back.
  Napi::Value Settle(const Napi::CallbackInfo &info) {
    SettleAttempt(Journal(info), GateViewOf(info[0]));
    return info.Env().Undefined();
  }

  Napi::Value Counts(const Napi::CallbackInfo &info) {
    LeftoverHead &head = Journal(info).head();
    Napi::Object counts = Napi::Object::New(info.Env());
    counts.Set("read", Napi::Number::New(info.Env(), double(Read64(head.count))));
    counts.Set("returned", Napi::Number::New(info.Env(), double(Read64(head.returned))));
    return counts;
  }

  // frames(): [{port, atNs, gsoSize, frame}] that are not back yet.
  Napi::Value Frames(const Napi::CallbackInfo &info) {
    LeftoverJournal &journal = Journal(info);
    Napi::Array frames = Napi::Array::New(info.Env());
    const LeftoverRecord *record = journal.First();
    for (uint64_t i = 0; i < journal.head().count; i++, record = LeftoverJournal::After(record)) {
      if (i >= journal.head().returned) frames.Set(frames.Length(), Describe(info.Env(), *record));
    }
    return frames;
  }

  static Napi::Object Describe(Napi::Env env, const LeftoverRecord &record) {
    OffloadHeader offload{};
    if (record.header_bytes >= sizeof offload) memcpy(&offload, record.header, sizeof offload);
    Napi::Object frame = Napi::Object::New(env);
    frame.Set("port", Napi::Number::New(env, record.port));
    frame.Set("atNs", BigIntOf(env, record.at_ns));
    frame.Set("gsoSize", Napi::Number::New(env, offload.gso_type == 0 ? 0 : offload.gso_size));
    frame.Set("frame", Napi::Buffer<uint8_t>::Copy(env, LeftoverJournal::FrameOf(&record), record.length));
    return frame;
  }

  // readRings(taps, atNs): whether there was room for everything.
  Napi::Value ReadRings(const Napi::CallbackInfo &info) {
    std::vector<RingTap> taps = RingTapsOf(info[0].As<Napi::Array>());
    return Napi::Boolean::New(info.Env(), Journal(info).ReadAll(taps.data(), taps.size(), Int64Of(info[1])));
  }

  Napi::Value Close(const Napi::CallbackInfo &info) {
    journal_.reset();
    sender_.reset();
    return info.Env().Undefined();
  }
};

std::shared_ptr<Descriptor> SenderOf(Napi::Value journal) { return JournalObject::Unwrap(journal.As<Napi::Object>())->sender_; }

}  // namespace

std::shared_ptr<LeftoverJournal> JournalOf(Napi::Value object) {
  std::shared_ptr<LeftoverJournal> journal = JournalObject::Unwrap(object.As<Napi::Object>())->journal_;
  if (!journal) ThrowErrno(object.Env(), EBADF, "the journal is closed");
  return journal;
}

std::vector<RingTap> RingTapsOf(Napi::Array array) {
  std::vector<RingTap> taps;
  for (uint32_t i = 0; i < array.Length(); i++) {
    Napi::Object tap = array.Get(i).As<Napi::Object>();
    taps.push_back({tap.Get("fd").As<Napi::Number>().Int32Value(), tap.Get("headerBytes").As<Napi::Number>().Uint32Value(),
                    tap.Get("port").As<Napi::Number>().Uint32Value()});
  }
  return taps;
}

static Facility leftovers_facility([](Napi::Env env, Napi::Object exports) {
  JournalObject::Register(env, exports);
  exports.Set("startGiveBack", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<GiveBackJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
