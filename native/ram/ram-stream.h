// The RAM of a QEMU's migration stream, taken out of a pipe and put into files, one a RAM block.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "descriptor.h"

namespace staghorn {

constexpr size_t kStreamPageBytes = 4096;  // TARGET_PAGE_SIZE of x86

// One RAM block and its file (-1: it is passed over). Pages of zeros that were never anything else stay holes.
class BlockFile {
 public:
  BlockFile(int fd, uint64_t length) : fd_(fd), arrived_(length / kStreamPageBytes), written_(arrived_.size()) {}

  // Null is a page of zeros. Returns whether the page came for the first time. Throws SystemError.
  bool Put(uint64_t offset, const uint8_t *page);
  void Flush();

 private:
  int fd_;
  std::vector<bool> arrived_, written_;
  std::vector<uint8_t> run_;  // pages one after another that are not written yet
  uint64_t run_offset_ = 0;
};

// Reads a stream as QEMU writes it without compression (migration/savevm.c, migration/ram.c). RAM is all that may be in
// it beside the state of devices, which comes last and is passed over.
class RamStream {
 public:
  // The pipe's reading end, how many bytes are in it that are none of the stream's, and the files of blocks by name.
  RamStream(Descriptor pipe, size_t plug_bytes, std::map<std::string, int> files)
      : pipe_(std::move(pipe)), files_(std::move(files)), plug_bytes_(plug_bytes) {}

  // Reads until a page has come and at most so many have never come, or, with 0, to the end of the stream. Throws SystemError.
  void ReceiveUntil(uint64_t pages_left, int cancel_fd);

  uint64_t pages_arrived() const { return pages_arrived_; }
  bool at_end() const { return at_end_; }

 private:
  enum class Phase { kHeader, kSections, kRam, kDevices };

  void Unplug();
  bool Fill(int cancel_fd);
  void ShrinkPipe();
  bool TakeItem();  // the next one of the stream; false if it has not come whole
  bool TakeHeader();
  bool TakeSection();
  bool TakeSectionStart(uint8_t type);
  bool TakeRam();
  bool TakeBlockSizes(uint64_t bytes);
  uint64_t pages_left() const { return total_pages_ - pages_arrived_; }

  bool Has(size_t bytes) const { return end_ - begin_ >= bytes; }
  const uint8_t *At(size_t offset) const { return buffer_.data() + begin_ + offset; }
  uint32_t Word(size_t offset) const;
  uint64_t LongWord(size_t offset) const { return uint64_t(Word(offset)) << 32 | Word(offset + 4); }
  std::string Name(size_t offset) const;  // behind its length in one byte; both must be there
  bool HasName(size_t offset) const { return Has(offset + 1) && Has(offset + 1 + *At(offset)); }

  Descriptor pipe_;
  std::map<std::string, int> files_;
  std::map<std::string, BlockFile> blocks_;
  std::vector<uint8_t> buffer_ = std::vector<uint8_t>(1 << 20);
  size_t begin_ = 0, end_ = 0, plug_bytes_;
  Phase phase_ = Phase::kHeader;
  std::string ram_block_;
  bool pipe_shrunk_ = false, at_end_ = false;
  uint64_t total_pages_ = 0, pages_arrived_ = 0;
};

}  // namespace staghorn
