#include "ram/ram-pages.h"

#include <emmintrin.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

#include "gate/checksum.h"
#include "job.h"

namespace staghorn {

Descriptor OpenFile(const std::string &path, int flags) {
  int fd = open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (fd < 0) throw SystemError(errno, "open " + path);
  return Descriptor(fd);
}

void ReadAt(int fd, void *to, size_t length, uint64_t offset, const char *what) {
  for (size_t done = 0; done < length;) {
    ssize_t got = pread(fd, static_cast<uint8_t *>(to) + done, length - done, off_t(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw SystemError(got < 0 ? errno : EIO, what);
    done += size_t(got);
  }
}

void WriteAt(int fd, const void *from, size_t length, uint64_t offset) {
  for (size_t done = 0; done < length;) {
    ssize_t put = pwrite(fd, static_cast<const uint8_t *>(from) + done, length - done, off_t(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) throw SystemError(put < 0 ? errno : ENOSPC, "write");
    done += size_t(put);
  }
}

// Moves the file's position, which nobody here uses.
bool IsHole(int fd, uint64_t from, size_t length) {
  off_t data = lseek(fd, off_t(from), SEEK_DATA);
  return data < 0 ? errno == ENXIO : data >= off_t(from + length);
}

bool IsZeroPage(const uint8_t *page) {
  const __m128i *words = reinterpret_cast<const __m128i *>(page);
  const __m128i zero = _mm_setzero_si128();
  for (size_t i = 0; i < kPageBytes / 16; i += 8) {
    __m128i sum = _mm_load_si128(words + i);
    for (size_t j = 1; j < 8; j++) sum = _mm_or_si128(sum, _mm_load_si128(words + i + j));
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(sum, zero)) != 0xffff) return false;
  }
  return true;
}

uint32_t ZeroChecksum(size_t length) {
  static const std::vector<uint8_t> zeros(kChunkBytes);
  static const uint32_t whole = Crc32c(0, zeros.data(), kChunkBytes);
  return length == kChunkBytes ? whole : Crc32c(0, zeros.data(), length);
}

size_t WriteNonZero(int fd, const uint8_t *from, size_t length, uint64_t offset) {
  size_t written = 0;
  for (size_t start = 0; start < length;) {
    if (IsZeroPage(from + start)) {
      start += kPageBytes;
      continue;
    }
    size_t end = start + kPageBytes;
    while (end < length && !IsZeroPage(from + end)) end += kPageBytes;
    WriteAt(fd, from + start, end - start, offset + start);
    written += end - start;
    start = end;
  }
  return written;
}

PageBuffer::PageBuffer(size_t bytes) : data_(static_cast<uint8_t *>(aligned_alloc(kPageBytes, bytes))) {
  if (data_ == nullptr) throw SystemError(ENOMEM, "buffer");
}

PageBuffer::~PageBuffer() { free(data_); }

}  // namespace staghorn
