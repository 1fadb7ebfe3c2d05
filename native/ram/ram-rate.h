// A limit of bytes a second that several jobs share.
#pragma once

#include <cstdint>
#include <mutex>

namespace staghorn {

class RateLimit {
 public:
  explicit RateLimit(double bytes_per_second) : bytes_per_second_(bytes_per_second) {}
  // Counts bytes that were just written; returns when (CLOCK_MONOTONIC, ns) the next may be.
  int64_t Spend(uint64_t bytes);

 private:
  double bytes_per_second_;
  std::mutex mutex_;
  int64_t free_ns_ = 0;
};

}  // namespace staghorn
