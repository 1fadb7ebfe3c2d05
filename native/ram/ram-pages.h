// Pages and chunks of guest RAM: sizes that every stored form shares, and small things that all who touch them need.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "descriptor.h"

namespace staghorn {

constexpr size_t kPageBytes = 4096;
constexpr size_t kChunkPages = 256;
constexpr size_t kChunkBytes = kChunkPages * kPageBytes;

// Throw SystemError. Reading past the end of a file is EIO, a write that takes nothing ENOSPC.
Descriptor OpenFile(const std::string &path, int flags);
void ReadAt(int fd, void *to, size_t length, uint64_t offset, const char *what);
void WriteAt(int fd, const void *from, size_t length, uint64_t offset);

// Whether a file has nothing there. False where its file system does not tell.
bool IsHole(int fd, uint64_t from, size_t length);

bool IsZeroPage(const uint8_t *page);
uint32_t ZeroChecksum(size_t length);  // CRC-32C of that many zeros, at most a chunk
// Writes the pages of [from, from + length) that are not all zeros; returns how many bytes those are.
size_t WriteNonZero(int fd, const uint8_t *from, size_t length, uint64_t offset);

// Page-aligned memory.
class PageBuffer {
 public:
  explicit PageBuffer(size_t bytes = kChunkBytes);
  ~PageBuffer();
  PageBuffer(const PageBuffer &) = delete;
  PageBuffer &operator=(const PageBuffer &) = delete;
  uint8_t *data() { return data_; }

 private:
  uint8_t *data_;
};

}  // namespace staghorn
