#include "gate/bpf.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

#include "addon.h"

namespace staghorn {

namespace {

int Bpf(bpf_cmd command, bpf_attr &attr) { return int(syscall(__NR_bpf, command, &attr, sizeof attr)); }

uint64_t Pointer(const void *pointer) { return reinterpret_cast<uintptr_t>(pointer); }

}  // namespace

Descriptor CreateMap(bpf_map_type type, const char *name, uint32_t value_size, uint32_t max_entries, uint32_t flags) {
  bpf_attr attr{};
  attr.map_type = type;
  attr.key_size = type == BPF_MAP_TYPE_RINGBUF ? 0 : 4;
  attr.value_size = value_size;
  attr.max_entries = max_entries;
  attr.map_flags = flags;
  strncpy(attr.map_name, name, sizeof attr.map_name - 1);
  int fd = Bpf(BPF_MAP_CREATE, attr);
  if (fd < 0) throw SyscallError{errno, "bpf(MAP_CREATE)"};
  return Descriptor(fd);
}

Descriptor OpenMapById(uint32_t id) {
  bpf_attr attr{};
  attr.map_id = id;
  int fd = Bpf(BPF_MAP_GET_FD_BY_ID, attr);
  if (fd < 0) throw SyscallError{errno, "bpf(MAP_GET_FD_BY_ID)"};
  return Descriptor(fd);
}

MapInfo ReadMapInfo(int map) {
  bpf_map_info info{};
  bpf_attr attr{};
  attr.info.bpf_fd = uint32_t(map);
  attr.info.info_len = sizeof info;
  attr.info.info = Pointer(&info);
  if (Bpf(BPF_OBJ_GET_INFO_BY_FD, attr) < 0) throw SyscallError{errno, "bpf(OBJ_GET_INFO_BY_FD)"};
  return {info.id, info.type, info.value_size, info.max_entries, info.name};
}

Descriptor LoadProgram(bpf_prog_type type, const char *name, const std::vector<bpf_insn> &instructions, uint32_t flags) {
  bpf_attr attr{};
  attr.prog_type = type;
  attr.insns = Pointer(instructions.data());
  attr.insn_cnt = uint32_t(instructions.size());
  attr.license = Pointer("Apache-2.0");
  attr.prog_flags = flags;
  strncpy(attr.prog_name, name, sizeof attr.prog_name - 1);
  int fd = Bpf(BPF_PROG_LOAD, attr);
  // The verifier gives up at any pending signal (kernel/bpf/verifier.c, do_check; libbpf tries five times).
  for (int tries = 1; fd < 0 && errno == EAGAIN && tries < 5; tries++) fd = Bpf(BPF_PROG_LOAD, attr);
  if (fd >= 0) return Descriptor(fd);
  // Ask again for the verifier's words, which say what the errno does not.
  int error = errno;
  std::vector<char> log(1 << 20);
  attr.log_level = 1;
  attr.log_size = uint32_t(log.size());
  attr.log_buf = Pointer(log.data());
  fd = Bpf(BPF_PROG_LOAD, attr);
  if (fd >= 0) return Descriptor(fd);
  std::string words(log.data());
  constexpr size_t kTail = 600;
  if (words.size() > kTail) words.erase(0, words.size() - kTail);
  throw SyscallError{error, "bpf(PROG_LOAD)" + (words.empty() ? "" : " [" + words + "]")};
}

Assembler::Label Assembler::NewLabel() {
  labels_.push_back(SIZE_MAX);
  return labels_.size() - 1;
}

void Assembler::Place(Label label) { labels_[label] = instructions_.size(); }

void Assembler::Emit(uint8_t code, int dst, int src, int16_t offset, int32_t imm) {
  bpf_insn instruction{};
  instruction.code = code;
  instruction.dst_reg = uint8_t(dst) & 0xf;
  instruction.src_reg = uint8_t(src) & 0xf;
  instruction.off = offset;
  instruction.imm = imm;
  instructions_.push_back(instruction);
}

void Assembler::EmitJump(uint8_t code, int dst, int src, int32_t imm, Label target) {
  jumps_.emplace_back(instructions_.size(), target);
  Emit(code, dst, src, 0, imm);
}

void Assembler::EmitWide(int dst, int src, uint32_t low, uint32_t high) {
  Emit(BPF_LD | BPF_DW | BPF_IMM, dst, src, 0, int32_t(low));
  Emit(0, 0, 0, 0, int32_t(high));
}

void Assembler::MoveImm(int dst, int32_t value) { Emit(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, value); }
void Assembler::Move(int dst, int src) { Emit(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0); }
void Assembler::AddImm(int dst, int32_t value) { Emit(BPF_ALU64 | BPF_ADD | BPF_K, dst, 0, 0, value); }
void Assembler::Load(int size, int dst, int src, int16_t offset) {
  Emit(uint8_t(BPF_LDX | BPF_MEM | size), dst, src, offset, 0);
}
void Assembler::Store(int size, int dst, int16_t offset, int src) {
  Emit(uint8_t(BPF_STX | BPF_MEM | size), dst, src, offset, 0);
}
void Assembler::StoreImm(int size, int dst, int16_t offset, int32_t value) {
  Emit(uint8_t(BPF_ST | BPF_MEM | size), dst, 0, offset, value);
}
void Assembler::LoadImm64(int dst, uint64_t value) { EmitWide(dst, 0, uint32_t(value), uint32_t(value >> 32)); }
void Assembler::LoadMap(int dst, int map) { EmitWide(dst, BPF_PSEUDO_MAP_FD, uint32_t(map), 0); }
void Assembler::LoadMapValue(int dst, int map, uint32_t offset) {
  EmitWide(dst, BPF_PSEUDO_MAP_VALUE, uint32_t(map), offset);
}
void Assembler::AtomicAdd(int dst, int16_t offset, int src) {
  Emit(BPF_STX | BPF_DW | BPF_ATOMIC, dst, src, offset, BPF_ADD);
}
void Assembler::AtomicFetchAdd(int dst, int16_t offset, int src) {
  Emit(BPF_STX | BPF_DW | BPF_ATOMIC, dst, src, offset, BPF_ADD | BPF_FETCH);
}
void Assembler::Call(int helper) { Emit(BPF_JMP | BPF_CALL, 0, 0, 0, helper); }
void Assembler::Jump(Label target) { EmitJump(BPF_JMP | BPF_JA, 0, 0, 0, target); }
void Assembler::JumpIf(int op, int dst, int src, Label target) {
  EmitJump(uint8_t(BPF_JMP | BPF_X | op), dst, src, 0, target);
}
void Assembler::JumpIfImm(int op, int dst, int32_t value, Label target) {
  EmitJump(uint8_t(BPF_JMP | BPF_K | op), dst, 0, value, target);
}
void Assembler::JumpIfImm32(int op, int dst, int32_t value, Label target) {
  EmitJump(uint8_t(BPF_JMP32 | BPF_K | op), dst, 0, value, target);
}
void Assembler::Exit() { Emit(BPF_JMP | BPF_EXIT, 0, 0, 0, 0); }

std::vector<bpf_insn> Assembler::Finish() {
  for (auto [at, label] : jumps_) {
    if (labels_[label] == SIZE_MAX) throw std::logic_error("a jump to a label that was never placed");
    instructions_[at].off = int16_t(ptrdiff_t(labels_[label]) - ptrdiff_t(at) - 1);
  }
  return std::move(instructions_);
}

// testProgram(fd, frame, mark): the program's verdict on one frame, by BPF_PROG_TEST_RUN; nothing is sent.
static Napi::Value TestProgram(const Napi::CallbackInfo &info) {
  auto frame = info[1].As<Napi::Buffer<uint8_t>>();
  __sk_buff context{};
  context.mark = info[2].As<Napi::Number>().Uint32Value();
  std::vector<uint8_t> out(frame.Length() + 256);
  bpf_attr attr{};
  attr.test.prog_fd = info[0].As<Napi::Number>().Uint32Value();
  attr.test.data_in = Pointer(frame.Data());
  attr.test.data_size_in = uint32_t(frame.Length());
  attr.test.data_out = Pointer(out.data());
  attr.test.data_size_out = uint32_t(out.size());
  attr.test.ctx_in = Pointer(&context);
  attr.test.ctx_size_in = sizeof context;
  attr.test.ctx_out = Pointer(&context);
  attr.test.ctx_size_out = sizeof context;
  if (Bpf(BPF_PROG_TEST_RUN, attr) < 0) ThrowErrno(info.Env(), errno, "bpf(PROG_TEST_RUN)");
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("verdict", Napi::Number::New(info.Env(), int32_t(attr.test.retval)));
  result.Set("mark", Napi::Number::New(info.Env(), context.mark));
  return result;
}

// Page tables of such memory are filled at once and copied at every fork (VM_MIXEDMAP: vma_needs_copy in the kernel's
// mm/memory.c), which is how Node.js starts a program: some 5 ms for each ring of 64 MiB.
void *MapMemoryOf(int map, size_t length, int protection, off_t offset) {
  void *memory = mmap(nullptr, length, protection, MAP_SHARED, map, offset);
  if (memory == MAP_FAILED) throw SyscallError{errno, "mmap of a BPF map"};
  madvise(memory, length, MADV_DONTFORK);
  return memory;
}

// enableProgramStats(): a descriptor; until it is closed the kernel takes the time of every run of every program.
static Napi::Value EnableProgramStats(const Napi::CallbackInfo &info) {
  bpf_attr attr{};
  attr.enable_stats.type = BPF_STATS_RUN_TIME;
  int fd = Bpf(BPF_ENABLE_STATS, attr);
  if (fd < 0) ThrowErrno(info.Env(), errno, "bpf(ENABLE_STATS)");
  return Napi::Number::New(info.Env(), fd);
}

// readProgramStats(fd): how often the program ran while statistics were taken, and for how long in all.
static Napi::Value ReadProgramStats(const Napi::CallbackInfo &info) {
  bpf_prog_info program{};
  bpf_attr attr{};
  attr.info.bpf_fd = info[0].As<Napi::Number>().Uint32Value();
  attr.info.info_len = sizeof program;
  attr.info.info = Pointer(&program);
  if (Bpf(BPF_OBJ_GET_INFO_BY_FD, attr) < 0) ThrowErrno(info.Env(), errno, "bpf(OBJ_GET_INFO_BY_FD)");
  Napi::Object stats = Napi::Object::New(info.Env());
  stats.Set("runs", Napi::Number::New(info.Env(), double(program.run_cnt)));
  stats.Set("runTimeNs", Napi::Number::New(info.Env(), double(program.run_time_ns)));
  return stats;
}

static Facility facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("enableProgramStats", Napi::Function::New(env, EnableProgramStats));
  exports.Set("readProgramStats", Napi::Function::New(env, ReadProgramStats));
  exports.Set("testProgram", Napi::Function::New(env, TestProgram));
});

}  // namespace staghorn
