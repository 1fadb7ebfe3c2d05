// The program that runs on every frame that comes in from an external port, as generic XDP: before packet sockets
// (Open vSwitch's userspace datapath) and before the rx_handler (its kernel datapath); net/core/dev.c,
// __netif_receive_skb_core.
//
//   let in again by us        -> count it as seen, pass it
//   pass mode, nothing held   -> count it, pass it
//   policy drop               -> count it, drop it
//   else                      -> into the ring and drop it; if that fails, count the failure and pass it
//
// XDP sees no mark, so our own frames are known by where and when they run: the admission program (below) leaves the
// number of its processor in the host's word, and the kernel receives the frame on that processor before it takes
// bottom halves up again (net/bpf/test_run.c, xdp_test_run_batch). No other frame can come between.
#include <linux/bpf.h>

#include <cstddef>

#include "gate/edge.h"

namespace staghorn {

namespace {

constexpr int R0 = BPF_REG_0, R1 = BPF_REG_1, R2 = BPF_REG_2, R3 = BPF_REG_3, R4 = BPF_REG_4;
constexpr int kContext = BPF_REG_6, kHost = BPF_REG_7, kPort = BPF_REG_8, kRecord = BPF_REG_9, kFrame = BPF_REG_10;

constexpr int16_t kLength = -8;  // on the stack

#define HOST(field) int16_t(offsetof(HostWord, field))
#define RECORD(field) int16_t(offsetof(RecordHeader, field))
#define PORT(field) int16_t(offsetof(PortWord, field))

class EdgeProgram {
 public:
  EdgeProgram(int state_map, int ring_map, EdgePolicy policy, uint32_t slot)
      : state_map_(state_map), ring_map_(ring_map), policy_(policy), slot_(slot) {}

  std::vector<bpf_insn> Assemble() {
    asm_.Move(kContext, R1);
    asm_.LoadMapValue(kHost, state_map_, 0);
    asm_.LoadMapValue(kPort, state_map_, uint32_t((1 + slot_) * sizeof(PortWord)));
    OwnFrames();
    Decide();
    if (policy_ == EdgePolicy::Hold) HandOver();
    Verdicts();
    return asm_.Finish();
  }

 private:
  void Count(int16_t offset) {
    asm_.MoveImm(R1, 1);
    asm_.AtomicAdd(kPort, offset, R1);
  }

  void OwnFrames() {
    asm_.Call(BPF_FUNC_get_smp_processor_id);
    asm_.AddImm(R0, 1);
    asm_.Load(BPF_W, R1, kHost, HOST(admitting));
    asm_.JumpIf(BPF_JNE, R1, R0, foreign_);
    asm_.StoreImm(BPF_W, kHost, HOST(admitting), 0);
    Count(PORT(seen));
    asm_.Load(BPF_W, R1, kHost, HOST(probing));
    asm_.JumpIfImm32(BPF_JNE, R1, 0, drop_);
    asm_.Jump(keep_);
    asm_.Place(foreign_);
  }

  void Decide() {
    asm_.Load(BPF_W, R1, kHost, HOST(mode));
    asm_.JumpIfImm32(BPF_JEQ, R1, int32_t(GateMode::Hold), divert_);
    if (policy_ == EdgePolicy::Hold) {
      asm_.Load(BPF_DW, R1, kPort, PORT(diverted));
      asm_.Load(BPF_DW, R2, kPort, PORT(returned));
      asm_.JumpIf(BPF_JNE, R1, R2, divert_);
    }
    Count(PORT(passed));
    asm_.Jump(keep_);
    asm_.Place(divert_);
    if (policy_ == EdgePolicy::Hold) return;
    Count(PORT(dropped));
    asm_.Jump(drop_);
  }

  void HandOver() {
    asm_.Move(R1, kContext);
    asm_.Call(BPF_FUNC_xdp_get_buff_len);
    asm_.Store(BPF_DW, kFrame, kLength, R0);
    Assembler::Label classes[kClasses];
    for (size_t i = 0; i < kClasses; i++) {
      classes[i] = asm_.NewLabel();
      asm_.JumpIfImm(BPF_JLE, R0, kCapacities[i], classes[i]);
    }
    asm_.Jump(fail_);
    for (size_t i = 0; i < kClasses; i++) {
      asm_.Place(classes[i]);
      Copy(kCapacities[i]);
    }
    asm_.Place(fill_);
    Fill();
  }

  void Copy(int32_t capacity) {
    asm_.LoadMap(R1, ring_map_);
    asm_.MoveImm(R2, int32_t(sizeof(RecordHeader)) + capacity);
    asm_.MoveImm(R3, 0);
    asm_.Call(BPF_FUNC_ringbuf_reserve);
    asm_.JumpIfImm(BPF_JEQ, R0, 0, fail_);
    asm_.Move(kRecord, R0);
    asm_.Move(R1, kContext);
    asm_.MoveImm(R2, 0);
    asm_.Move(R3, kRecord);
    asm_.AddImm(R3, sizeof(RecordHeader));
    asm_.Load(BPF_DW, R4, kFrame, kLength);
    asm_.JumpIfImm(BPF_JGT, R4, capacity, discard_);
    asm_.JumpIfImm(BPF_JLT, R4, 1, discard_);
    asm_.Call(BPF_FUNC_xdp_load_bytes);
    asm_.JumpIfImm(BPF_JNE, R0, 0, discard_);
    asm_.Jump(fill_);
  }

  void Fill() {
    asm_.StoreImm(BPF_W, kRecord, RECORD(slot), int32_t(slot_));
    asm_.Load(BPF_DW, R1, kFrame, kLength);
    asm_.Store(BPF_W, kRecord, RECORD(length), R1);
    for (int16_t unknown : {RECORD(vlan_present), RECORD(vlan_tci), RECORD(vlan_proto), RECORD(gso_size), RECORD(protocol)}) {
      asm_.StoreImm(BPF_W, kRecord, unknown, 0);
    }
    asm_.Call(BPF_FUNC_ktime_get_ns);
    asm_.Store(BPF_DW, kRecord, RECORD(at_ns), R0);
    asm_.MoveImm(R2, 1);
    asm_.AtomicFetchAdd(kPort, PORT(diverted), R2);
    asm_.Store(BPF_DW, kRecord, RECORD(seq), R2);
    asm_.Move(R1, kRecord);
    asm_.MoveImm(R2, BPF_RB_NO_WAKEUP);
    asm_.Call(BPF_FUNC_ringbuf_submit);
    asm_.Jump(drop_);
  }

  void Verdicts() {
    if (policy_ == EdgePolicy::Hold) {
      asm_.Place(discard_);
      asm_.Move(R1, kRecord);
      asm_.MoveImm(R2, BPF_RB_NO_WAKEUP);
      asm_.Call(BPF_FUNC_ringbuf_discard);
      asm_.Place(fail_);
      Count(PORT(failed));
    }
    asm_.Place(keep_);
    asm_.MoveImm(R0, XDP_PASS);
    asm_.Exit();
    asm_.Place(drop_);
    asm_.MoveImm(R0, XDP_DROP);
    asm_.Exit();
  }

  int state_map_, ring_map_;
  EdgePolicy policy_;
  uint32_t slot_;
  Assembler asm_;
  Assembler::Label foreign_ = asm_.NewLabel(), divert_ = asm_.NewLabel(), fill_ = asm_.NewLabel(),
                   discard_ = asm_.NewLabel(), fail_ = asm_.NewLabel(), keep_ = asm_.NewLabel(), drop_ = asm_.NewLabel();
};

}  // namespace

Descriptor LoadEdgeProgram(int state_map, int ring_map, EdgePolicy policy, uint32_t slot) {
  // With fragments, so that the kernel need not copy a long frame into one piece for us.
  return LoadProgram(BPF_PROG_TYPE_XDP, "staghorn_edge", EdgeProgram(state_map, ring_map, policy, slot).Assemble(),
                     BPF_F_XDP_HAS_FRAGS);
}

Descriptor LoadAdmission(int state_map, bool probe) {
  Assembler assembler;
  assembler.LoadMapValue(kHost, state_map, 0);
  assembler.StoreImm(BPF_W, kHost, HOST(probing), probe ? 1 : 0);
  assembler.Call(BPF_FUNC_get_smp_processor_id);
  assembler.AddImm(R0, 1);
  assembler.Store(BPF_W, kHost, HOST(admitting), R0);
  assembler.MoveImm(R0, XDP_PASS);
  assembler.Exit();
  return LoadProgram(BPF_PROG_TYPE_XDP, "staghorn_admit", assembler.Finish());
}

}  // namespace staghorn
