#include "ram/ram-stream.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <cstring>

#include "job.h"

namespace staghorn {

namespace {

// QEMU: migration/savevm.h
constexpr uint8_t kEof = 0, kStart = 1, kPart = 2, kEnd = 3, kFull = 4, kConfiguration = 7, kCommand = 8, kFooter = 0x7e;
// QEMU: migration/ram.c, RAM_SAVE_FLAG_*, in the low bits of a page's address
constexpr uint64_t kZero = 0x02, kMemSize = 0x04, kPage = 0x08, kEos = 0x10, kContinue = 0x20, kFlagMask = kStreamPageBytes - 1;
constexpr size_t kRunBytes = 64 * kStreamPageBytes;
constexpr uint32_t kVersion = 3;
constexpr size_t kNarrowPipeBytes = 4096, kWidePipeBytes = 64 * 1024;
// A page of zeros is 9 bytes: so far ahead QEMU may be with a wide pipe, once everything that came was read.
constexpr uint64_t kWidePipePages = (kWidePipeBytes + 32 * 1024) / 9;

[[noreturn]] void Refuse(const std::string &what) { throw SystemError(EPROTO, "the migration stream has " + what); }

void WriteAll(int fd, const uint8_t *bytes, size_t length, uint64_t offset) {
  while (length > 0) {
    ssize_t written = pwrite(fd, bytes, length, off_t(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw SystemError(errno, "write of RAM");
    bytes += written;
    length -= size_t(written);
    offset += uint64_t(written);
  }
}

}  // namespace

bool BlockFile::Put(uint64_t offset, const uint8_t *page) {
  static const std::vector<uint8_t> zeros(kStreamPageBytes);
  size_t index = offset / kStreamPageBytes;
  if (index >= arrived_.size()) Refuse("a page beyond its block's end");
  bool first = !arrived_[index];
  arrived_[index] = true;
  if (fd_ < 0 || (page == nullptr && !written_[index])) return first;
  written_[index] = true;
  if (run_offset_ + run_.size() != offset || run_.size() >= kRunBytes) Flush();
  if (run_.empty()) run_offset_ = offset;
  if (page == nullptr) page = zeros.data();
  run_.insert(run_.end(), page, page + kStreamPageBytes);
  return first;
}

void BlockFile::Flush() {
  WriteAll(fd_, run_.data(), run_.size(), run_offset_);
  run_.clear();
}

void RamStream::ReceiveUntil(uint64_t pages_left_max, int cancel_fd) {
  Unplug();
  while (!at_end_) {
    while (TakeItem()) continue;
    bool told = total_pages_ > 0;
    if (told && pages_left() <= 2 * kWidePipePages) ShrinkPipe();
    if (pages_arrived_ > 0 && pages_left_max > 0 && pages_left() <= pages_left_max) return;
    if (!Fill(cancel_fd)) at_end_ = true;
  }
  for (auto &[name, block] : blocks_) block.Flush();
  if (phase_ != Phase::kDevices || pages_left() > 0) throw SystemError(EPIPE, "QEMU ended the migration before all RAM had come");
}

void RamStream::Unplug() {
  if (plug_bytes_ == 0) return;
  while (plug_bytes_ > 0) {
    ssize_t got = read(pipe_.get(), buffer_.data(), std::min(plug_bytes_, buffer_.size()));
    if (got <= 0) throw SystemError(got < 0 ? errno : EIO, "unplugging the migration stream");
    plug_bytes_ -= size_t(got);
  }
  fcntl(pipe_.get(), F_SETPIPE_SZ, kWidePipeBytes);
}

// Waits for more bytes; false at the end of the stream.
bool RamStream::Fill(int cancel_fd) {
  if (begin_ > 0) memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
  pollfd waiting[2] = {{pipe_.get(), POLLIN, 0}, {cancel_fd, POLLIN, 0}};
  while (poll(waiting, 2, -1) < 0) continue;
  if (waiting[1].revents != 0) throw SystemError(ECANCELED, "cancelled");
  ssize_t got = read(pipe_.get(), buffer_.data() + end_, buffer_.size() - end_);
  if (got < 0) throw SystemError(errno, "read of the migration stream");
  end_ += size_t(got);
  return got > 0;
}

// A wide pipe is faster, and a narrow one keeps QEMU from having sent all pages before it is let. EBUSY while it is full.
void RamStream::ShrinkPipe() {
  if (!pipe_shrunk_) pipe_shrunk_ = fcntl(pipe_.get(), F_SETPIPE_SZ, kNarrowPipeBytes) >= 0;
}

uint32_t RamStream::Word(size_t offset) const {
  const uint8_t *at = At(offset);
  return uint32_t(at[0]) << 24 | uint32_t(at[1]) << 16 | uint32_t(at[2]) << 8 | at[3];
}

std::string RamStream::Name(size_t offset) const {
  return std::string(reinterpret_cast<const char *>(At(offset + 1)), *At(offset));
}

bool RamStream::TakeItem() {
  switch (phase_) {
    case Phase::kHeader: return TakeHeader();
    case Phase::kSections: return TakeSection();
    case Phase::kRam: return TakeRam();
    case Phase::kDevices: begin_ = end_; return false;
  }
  return false;
}

bool RamStream::TakeHeader() {
  if (!Has(8)) return false;
  if (memcmp(At(0), "QEVM", 4) != 0 || Word(4) != kVersion) Refuse("no header of version 3");
  begin_ += 8;
  phase_ = Phase::kSections;
  return true;
}

bool RamStream::TakeSection() {
  if (!Has(1)) return false;
  uint8_t type = *At(0);
  switch (type) {
    case kConfiguration:
      if (!Has(5) || !Has(5 + Word(1))) return false;
      begin_ += 5 + Word(1);
      return true;
    case kCommand:
      if (!Has(5) || !Has(5 + (Word(1) & 0xffff))) return false;
      begin_ += 5 + (Word(1) & 0xffff);
      return true;
    case kFooter:
      if (!Has(5)) return false;
      begin_ += 5;
      return true;
    case kPart:
    case kEnd:
      if (!Has(5)) return false;
      begin_ += 5;
      phase_ = Phase::kRam;
      return true;
    case kStart:
    case kFull: return TakeSectionStart(type);
    case kEof: phase_ = Phase::kDevices; return true;
    default: Refuse("a section of unknown type " + std::to_string(type));
  }
}

bool RamStream::TakeSectionStart(uint8_t type) {
  constexpr size_t kNameAt = 5;
  if (!HasName(kNameAt)) return false;
  if (type == kFull) {
    phase_ = Phase::kDevices;
    return true;
  }
  std::string name = Name(kNameAt);
  size_t bytes = kNameAt + 1 + name.size() + 8;  // its instance and version follow
  if (!Has(bytes)) return false;
  // A section has no length: one that is not known cannot be passed over.
  if (name != "ram") Refuse("a live section of " + name + " beside RAM");
  begin_ += bytes;
  phase_ = Phase::kRam;
  return true;
}

bool RamStream::TakeRam() {
  if (!Has(8)) return false;
  uint64_t address = LongWord(0) & ~kFlagMask, flags = LongWord(0) & kFlagMask;
  if (flags == kEos) {
    begin_ += 8;
    phase_ = Phase::kSections;
    return true;
  }
  if (flags == kMemSize) return TakeBlockSizes(address);
  if ((flags & ~kContinue) != kZero && (flags & ~kContinue) != kPage) Refuse("a page with flags " + std::to_string(flags));
  size_t at = 8;
  if (!(flags & kContinue)) {
    if (!HasName(at)) return false;
    ram_block_ = Name(at);
    at += 1 + ram_block_.size();
  }
  bool zero = flags & kZero;
  size_t content = zero ? 1 : kStreamPageBytes;
  if (!Has(at + content)) return false;
  auto block = blocks_.find(ram_block_);
  if (block == blocks_.end()) Refuse("a page of an unknown block " + ram_block_);
  if (zero && *At(at) != 0) Refuse("a page filled with one byte that is not zero");
  pages_arrived_ += block->second.Put(address, zero ? nullptr : At(at)) ? 1 : 0;
  begin_ += at + content;
  return true;
}

// The table of all blocks, so many bytes of RAM: name and length of each. It comes first.
bool RamStream::TakeBlockSizes(uint64_t bytes) {
  size_t at = 8;
  std::map<std::string, uint64_t> lengths;
  for (uint64_t left = bytes; left > 0;) {
    if (!HasName(at)) return false;
    std::string name = Name(at);
    at += 1 + name.size();
    if (!Has(at + 8)) return false;
    uint64_t length = LongWord(at);
    at += 8;
    if (length == 0 || length > left) Refuse("a wrong table of blocks");
    left -= length;
    lengths[name] = length;
  }
  for (const auto &[name, length] : lengths) {
    auto file = files_.find(name);
    blocks_.emplace(name, BlockFile(file == files_.end() ? -1 : file->second, length));
  }
  for (const auto &[name, fd] : files_)
    if (!lengths.count(name)) Refuse("no RAM block " + name);
  total_pages_ = bytes / kStreamPageBytes;
  begin_ += at;
  return true;
}

}  // namespace staghorn
