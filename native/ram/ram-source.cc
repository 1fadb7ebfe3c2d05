#include "ram/ram-source.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "job.h"

namespace staghorn {

static constexpr uint64_t kPagemapPresent = 1ull << 63, kPagemapSwapped = 1ull << 62;

RamSource::RamSource(Napi::Object options) {
  if (options.Get("pid").IsNumber()) pid_ = options.Get("pid").As<Napi::Number>().Int32Value();
  else fd_ = options.Get("fd").As<Napi::Number>().Int32Value();
  forked_ = options.Get("forked").ToBoolean();
  Napi::Array regions = options.Get("regions").As<Napi::Array>();
  for (uint32_t i = 0; i < regions.Length(); i++) {
    Napi::Object region = regions.Get(i).As<Napi::Object>();
    bool lossless;
    regions_.push_back({region.Get("address").As<Napi::BigInt>().Uint64Value(&lossless),
                        uint64_t(region.Get("length").As<Napi::Number>().Int64Value()),
                        uint64_t(region.Get("fileOffset").As<Napi::Number>().Int64Value())});
  }
}

void RamSource::Open() {
  if (pid_ < 0) return;
  std::string proc = "/proc/" + std::to_string(pid_);
  try {
    memory_ = OpenFile(proc + "/mem", O_RDONLY);
    pagemap_ = OpenFile(proc + "/pagemap", O_RDONLY);
  } catch (const SystemError &error) {
    throw SystemError(error.error == ENOENT ? ESRCH : error.error, error.what());  // a zombie's, or nobody's
  }
  MarkAnonymous(proc + "/maps");
}

// Pages of private anonymous memory which are neither present nor swapped out are zeros, and need not be read; in a
// private file mapping they are the file's.
void RamSource::MarkAnonymous(const std::string &maps_path) {
  std::ifstream maps(maps_path);
  for (std::string line; std::getline(maps, line);) {
    uint64_t start, end, inode = 1;
    char dash;
    std::string permissions, offset, device;
    std::istringstream fields(line);
    fields >> std::hex >> start >> dash >> end >> permissions >> offset >> device >> std::dec >> inode;
    for (Region &region : regions_) {
      if (start <= region.address && end >= region.address + region.length) region.anonymous = inode == 0 && permissions[3] == 'p';
    }
  }
}

bool RamSource::Read(uint64_t from, size_t length, uint8_t *buffer) const {
  const Region *source = nullptr;
  for (const Region &region : regions_) {
    if (from >= region.file_offset && from < region.file_offset + region.length) source = &region;
  }
  if (source == nullptr) return false;
  const size_t filled = size_t(std::min<uint64_t>(length, source->file_offset + source->length - from));
  if (pid_ < 0 && IsHole(fd_, source->address + (from - source->file_offset), filled)) return false;
  if (!ReadPages(*source, source->address + (from - source->file_offset), filled, buffer)) return false;
  memset(buffer + filled, 0, length - filled);
  return true;
}

bool RamSource::ReadPages(const Region &region, uint64_t address, size_t length, uint8_t *buffer) const {
  size_t pages = length / kPageBytes;
  uint64_t entries[kChunkPages];
  if (region.anonymous) {
    ssize_t got = pread(pagemap_.get(), entries, pages * 8, off_t(address / kPageBytes * 8));
    if (got != ssize_t(pages * 8)) throw SystemError(got < 0 ? errno : ESRCH, "read /proc/PID/pagemap");
  } else {
    std::fill(entries, entries + pages, kPagemapPresent);
  }
  bool any = false;
  for (size_t start = 0; start < pages;) {
    bool present = entries[start] & (kPagemapPresent | kPagemapSwapped);
    size_t end = start + 1;
    while (end < pages && bool(entries[end] & (kPagemapPresent | kPagemapSwapped)) == present) end++;
    uint8_t *to = buffer + start * kPageBytes;
    if (present) ReadMemory(address + start * kPageBytes, (end - start) * kPageBytes, to);
    else memset(to, 0, (end - start) * kPageBytes);
    any |= present;
    start = end;
  }
  return any;
}

// process_vm_readv copies once where /proc/PID/mem copies twice, but it pins: what a fork shares with the VM the kernel
// would copy for it first (gup_must_unshare in mm/gup.c), so that all RAM would exist twice. The second also reads what
// is mapped unreadable.
void RamSource::ReadMemory(uint64_t address, size_t length, uint8_t *to) const {
  if (pid_ < 0) return ReadAt(fd_, to, length, address, "read the memory file");
  iovec local = {to, length}, remote = {reinterpret_cast<void *>(address), length};
  if (!forked_ && process_vm_readv(pid_, &local, 1, &remote, 1, 0) == ssize_t(length)) return;
  for (size_t done = 0; done < length;) {
    ssize_t got = pread(memory_.get(), to + done, length - done, off_t(address + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw SystemError(got < 0 ? errno : ESRCH, "read /proc/PID/mem");  // 0: the process is gone
    done += size_t(got);
  }
}

}  // namespace staghorn
