// The bpf(2) system call and an assembler for the few instructions that the gate's program is made of.
#pragma once

#include <linux/bpf.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "descriptor.h"

namespace staghorn {

// A failed system call: turned into a JavaScript error at the edge of the addon.
struct SyscallError {
  int error;
  std::string syscall;
};

struct MapInfo {
  uint32_t id;
  uint32_t type;
  uint32_t value_size;
  uint32_t max_entries;
  std::string name;
};

// All of these throw SyscallError.
Descriptor CreateMap(bpf_map_type type, const char *name, uint32_t value_size, uint32_t max_entries, uint32_t flags);
Descriptor OpenMapById(uint32_t id);
MapInfo ReadMapInfo(int map);
// Maps memory of a map into this process, and into none that is forked from it.
void *MapMemoryOf(int map, size_t length, int protection, off_t offset);
Descriptor LoadProgram(bpf_prog_type type, const char *name, const std::vector<bpf_insn> &instructions, uint32_t flags = 0);

// Assembles instructions; jumps name a label, which may be placed later.
class Assembler {
 public:
  using Label = size_t;

  Label NewLabel();
  void Place(Label label);

  void MoveImm(int dst, int32_t value);
  void Move(int dst, int src);
  void AddImm(int dst, int32_t value);
  void Load(int size, int dst, int src, int16_t offset);
  void Store(int size, int dst, int16_t offset, int src);
  void StoreImm(int size, int dst, int16_t offset, int32_t value);
  void LoadImm64(int dst, uint64_t value);
  void LoadMap(int dst, int map);
  void LoadMapValue(int dst, int map, uint32_t offset);
  // *(u64 *)(dst + offset) += src, atomically.
  void AtomicAdd(int dst, int16_t offset, int src);
  // The same, and src takes the old value.
  void AtomicFetchAdd(int dst, int16_t offset, int src);
  void Call(int helper);
  void Jump(Label target);
  // op is BPF_JEQ, BPF_JNE, BPF_JGT, BPF_JLE: on all 64 bits, or on the low 32.
  void JumpIf(int op, int dst, int src, Label target);
  void JumpIfImm(int op, int dst, int32_t value, Label target);
  void JumpIfImm32(int op, int dst, int32_t value, Label target);
  void Exit();

  std::vector<bpf_insn> Finish();

 private:
  void Emit(uint8_t code, int dst, int src, int16_t offset, int32_t imm);
  void EmitJump(uint8_t code, int dst, int src, int32_t imm, Label target);
  void EmitWide(int dst, int src, uint32_t low, uint32_t high);

  std::vector<bpf_insn> instructions_;
  std::vector<size_t> labels_;
  std::vector<std::pair<size_t, Label>> jumps_;
};

}  // namespace staghorn
