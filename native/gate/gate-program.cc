// The program that runs on every frame on its way into a port.
//
//   marked by us           -> count it as seen, keep it
//   a marker of ours       -> count it, hand it over if somebody listens, drop it
//   pass, nothing held     -> count it, keep it
//   else                   -> hand it over and drop it; if that fails, count the failure and keep it
//
// From before the look at the mode until all is done a run counts as inside, so that whoever turned the gate can tell
// when nobody acts on what it was before. Both counts are full barriers (Linux Documentation/atomic_t.txt).
//
// `diverted` grows only after the frame is safe in the ring's memory, so failures leave no gap. A record is of
// one of a few constant sizes, because bpf_ringbuf_reserve takes nothing else.
#include <arpa/inet.h>
#include <linux/pkt_cls.h>

#include <cstddef>

#include "gate/gate.h"

namespace staghorn {

namespace {

constexpr int R0 = BPF_REG_0, R1 = BPF_REG_1, R2 = BPF_REG_2, R3 = BPF_REG_3, R4 = BPF_REG_4;
constexpr int kContext = BPF_REG_6, kHost = BPF_REG_7, kPort = BPF_REG_8, kRecord = BPF_REG_9, kFrame = BPF_REG_10;

constexpr uint16_t kMarkerEtherType = 0x88b5;  // IEEE 802 local experimental EtherType 1
constexpr int32_t kEthernetHeaderBytes = 14;
constexpr char kMarkerMagic[8] = {'S', 'T', 'A', 'G', 'M', 'A', 'R', 'K'};
constexpr int32_t kMarkerCapacity = 128;
// Tags that stand in the bytes: a datapath in user space leaves them there. The kernel keeps its own apart.
constexpr int kTagsMax = 2;
constexpr int32_t kTagBytes = 4;
constexpr uint16_t kTpidC = 0x8100, kTpidS = 0x88a8;

// On the stack.
constexpr int16_t kPayload = -8;

#define CONTEXT(field) int16_t(offsetof(__sk_buff, field))
#define RECORD(field) int16_t(offsetof(RecordHeader, field))
#define PORT(field) int16_t(offsetof(PortWord, field))

class Program {
 public:
  Program(const GateCore &core, ProgramKind kind, uint32_t slot) : core_(core), kind_(kind), slot_(slot) {}

  std::vector<bpf_insn> Assemble() {
    asm_.Move(kContext, R1);
    asm_.LoadMapValue(kHost, core_.state_map.get(), 0);
    asm_.LoadMapValue(kPort, core_.state_map.get(), uint32_t((1 + slot_) * sizeof(PortWord)));
    OwnFrames();
    Markers();
    Decide();
    HandOver();
    Verdicts();
    return asm_.Finish();
  }

 private:
  void Count(int16_t offset) {
    asm_.MoveImm(R1, 1);
    asm_.AtomicAdd(kPort, offset, R1);
  }

  // R1 is gone afterwards.
  void CountInside(int32_t change) {
    asm_.MoveImm(R1, change);
    asm_.AtomicFetchAdd(kPort, PORT(inside), R1);
  }

  void OwnFrames() {
    asm_.Load(BPF_W, R1, kContext, CONTEXT(mark));
    asm_.JumpIfImm32(BPF_JNE, R1, int32_t(core_.state->Host()->mark), foreign_);
    Count(PORT(seen));
    if (kind_ == ProgramKind::Egress) {
      // It may travel on, to another port of this gate.
      asm_.MoveImm(R1, 0);
      asm_.Store(BPF_W, kContext, CONTEXT(mark), R1);
    }
    asm_.Jump(keep_);
    asm_.Place(foreign_);
  }

  // R1 = the bytes of the frame at an offset; another frame if there are none.
  void LoadBytes(int32_t offset, int32_t length, int size) {
    asm_.Move(R1, kContext);
    asm_.MoveImm(R2, offset);
    asm_.Move(R3, kFrame);
    asm_.AddImm(R3, kPayload);
    asm_.MoveImm(R4, length);
    asm_.Call(BPF_FUNC_skb_load_bytes);
    asm_.JumpIfImm(BPF_JNE, R0, 0, no_marker_);
    asm_.Load(size, R1, kFrame, kPayload);
  }

  void Markers() {
    asm_.Load(BPF_W, R1, kContext, CONTEXT(protocol));
    for (int tags = 0;; tags++) {
      Assembler::Label tag = asm_.NewLabel(), other = asm_.NewLabel();
      asm_.JumpIfImm32(BPF_JNE, R1, htons(kMarkerEtherType), other);
      LoadBytes(kEthernetHeaderBytes + tags * kTagBytes, sizeof kMarkerMagic, BPF_DW);
      uint64_t magic;
      __builtin_memcpy(&magic, kMarkerMagic, sizeof magic);
      asm_.LoadImm64(R2, magic);
      asm_.JumpIf(BPF_JNE, R1, R2, no_marker_);
      asm_.Jump(marker_);
      asm_.Place(other);
      if (tags == kTagsMax) break;
      asm_.JumpIfImm32(BPF_JEQ, R1, htons(kTpidC), tag);
      asm_.JumpIfImm32(BPF_JNE, R1, htons(kTpidS), no_marker_);
      asm_.Place(tag);
      LoadBytes(kEthernetHeaderBytes + tags * kTagBytes + 2, 2, BPF_H);
    }
    asm_.Jump(no_marker_);
    asm_.Place(marker_);
    Count(PORT(markers));
    asm_.Load(BPF_W, R1, kHost, int16_t(offsetof(HostWord, listening)));
    asm_.JumpIfImm32(BPF_JEQ, R1, 0, drop_);
    Copy(core_.marker_map.get(), kMarkerCapacity, drop_);
    Describe();
    Submit();
    asm_.Jump(drop_);
    asm_.Place(no_marker_);
  }

  void Decide() {
    CountInside(1);
    asm_.Load(BPF_W, R1, kHost, int16_t(offsetof(HostWord, mode)));
    asm_.JumpIfImm32(BPF_JEQ, R1, int32_t(GateMode::Hold), divert_);
    asm_.Load(BPF_DW, R1, kPort, PORT(diverted));
    asm_.Load(BPF_DW, R2, kPort, PORT(returned));
    asm_.JumpIf(BPF_JNE, R1, R2, divert_);
    Count(PORT(passed));
    CountInside(-1);
    asm_.Jump(keep_);
    asm_.Place(divert_);
  }

  void HandOver() {
    asm_.Load(BPF_W, R1, kContext, CONTEXT(len));
    Assembler::Label classes[kClasses];
    for (size_t i = 0; i < kClasses; i++) {
      classes[i] = asm_.NewLabel();
      asm_.JumpIfImm(BPF_JLE, R1, kCapacities[i], classes[i]);
    }
    asm_.Jump(fail_);
    for (size_t i = 0; i < kClasses; i++) {
      asm_.Place(classes[i]);
      Copy(core_.ring_map.get(), kCapacities[i], fail_);
      asm_.Jump(fill_);
    }
    asm_.Place(fill_);
    Describe();
    asm_.MoveImm(R2, 1);
    asm_.AtomicFetchAdd(kPort, PORT(diverted), R2);
    asm_.Store(BPF_DW, kRecord, RECORD(seq), R2);
    Submit();
    CountInside(-1);
    asm_.Jump(drop_);
  }

  // A record of its own with the frame's bytes, or a jump to `without`.
  void Copy(int ring, int32_t capacity, Assembler::Label without) {
    Assembler::Label discard = asm_.NewLabel(), copied = asm_.NewLabel();
    asm_.LoadMap(R1, ring);
    asm_.MoveImm(R2, int32_t(sizeof(RecordHeader)) + capacity);
    asm_.MoveImm(R3, 0);
    asm_.Call(BPF_FUNC_ringbuf_reserve);
    asm_.JumpIfImm(BPF_JEQ, R0, 0, without);
    asm_.Move(kRecord, R0);
    asm_.Move(R1, kContext);
    asm_.MoveImm(R2, 0);
    asm_.Move(R3, kRecord);
    asm_.AddImm(R3, sizeof(RecordHeader));
    asm_.Load(BPF_W, R4, kContext, CONTEXT(len));
    asm_.JumpIfImm(BPF_JGT, R4, capacity, discard);
    // "Less than 1", not "equal to 0": verifiers up to Linux 6.6 learn no lower bound from an inequality.
    asm_.JumpIfImm(BPF_JLT, R4, 1, discard);
    asm_.Call(BPF_FUNC_skb_load_bytes);
    asm_.JumpIfImm(BPF_JEQ, R0, 0, copied);
    asm_.Place(discard);
    asm_.Move(R1, kRecord);
    asm_.MoveImm(R2, BPF_RB_NO_WAKEUP);
    asm_.Call(BPF_FUNC_ringbuf_discard);
    asm_.Jump(without);
    asm_.Place(copied);
  }

  void CopyField(int16_t from, int16_t to) {
    asm_.Load(BPF_W, R1, kContext, from);
    asm_.Store(BPF_W, kRecord, to, R1);
  }

  void Describe() {
    asm_.StoreImm(BPF_W, kRecord, RECORD(slot), int32_t(slot_));
    CopyField(CONTEXT(len), RECORD(length));
    CopyField(CONTEXT(vlan_present), RECORD(vlan_present));
    CopyField(CONTEXT(vlan_tci), RECORD(vlan_tci));
    CopyField(CONTEXT(vlan_proto), RECORD(vlan_proto));
    CopyField(CONTEXT(gso_size), RECORD(gso_size));
    CopyField(CONTEXT(protocol), RECORD(protocol));
    asm_.Call(BPF_FUNC_ktime_get_ns);
    asm_.Store(BPF_DW, kRecord, RECORD(at_ns), R0);
  }

  void Submit() {
    asm_.Move(R1, kRecord);
    asm_.MoveImm(R2, BPF_RB_NO_WAKEUP);
    asm_.Call(BPF_FUNC_ringbuf_submit);
  }

  void Verdicts() {
    asm_.Place(fail_);
    Count(PORT(failed));
    CountInside(-1);
    asm_.Place(keep_);
    if (kind_ == ProgramKind::Tap) {
      asm_.Load(BPF_W, R0, kContext, CONTEXT(len));
    } else {
      asm_.MoveImm(R0, TC_ACT_UNSPEC);  // the device's own filters still have their say
    }
    asm_.Exit();
    asm_.Place(drop_);
    // At egress, "stolen" tells the sender that all is well; "shot" would tell it that the frame was lost.
    asm_.MoveImm(R0, kind_ == ProgramKind::Tap ? 0 : TC_ACT_STOLEN);
    asm_.Exit();
  }

  const GateCore &core_;
  ProgramKind kind_;
  uint32_t slot_;
  Assembler asm_;
  Assembler::Label foreign_ = asm_.NewLabel(), no_marker_ = asm_.NewLabel(), divert_ = asm_.NewLabel(),
                   marker_ = asm_.NewLabel(), fill_ = asm_.NewLabel(), fail_ = asm_.NewLabel(), keep_ = asm_.NewLabel(), drop_ = asm_.NewLabel();
};

}  // namespace

Descriptor LoadGateProgram(const GateCore &core, ProgramKind kind, uint32_t slot) {
  auto type = kind == ProgramKind::Tap ? BPF_PROG_TYPE_SOCKET_FILTER : BPF_PROG_TYPE_SCHED_CLS;
  return LoadProgram(type, "staghorn_gate", Program(core, kind, slot).Assemble());
}

}  // namespace staghorn
