// Where RAM is read from: the memory of a process that does not change it meanwhile, or a file.
#pragma once

#include <napi.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "descriptor.h"
#include "ram/ram-pages.h"

namespace staghorn {

class RamSource {
 public:
  explicit RamSource(Napi::Object options);  // reads `pid` with `forked`, or `fd`, and `regions`
  // Must be called once before Read. Throws SystemError ESRCH if the process is gone.
  void Open();
  // Fills the buffer with [from, from + length) of what is saved; false if all of it is known to be zeros.
  bool Read(uint64_t from, size_t length, uint8_t *buffer) const;

 private:
  struct Region {
    uint64_t address, length, file_offset;
    bool anonymous = false;
  };
  void MarkAnonymous(const std::string &maps_path);
  bool ReadPages(const Region &region, uint64_t address, size_t length, uint8_t *buffer) const;
  void ReadMemory(uint64_t address, size_t length, uint8_t *to) const;

  pid_t pid_ = -1;
  bool forked_ = false;
  int fd_ = -1;
  std::vector<Region> regions_;
  Descriptor memory_, pagemap_;
};

}  // namespace staghorn
