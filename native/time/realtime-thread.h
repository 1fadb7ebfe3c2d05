// A thread that must not be late.
#pragma once

#include <sys/mman.h>

#include <cstddef>

namespace staghorn {

// Real-time priority, no timer slack, a stack that is there.
void PrepareThread(bool *realtime, int priority);

// Locks pages for as long as it lives; where the limit forbids that, they are at least present.
class LockedPages {
 public:
  LockedPages(const void *start, size_t length) : start_(start), length_(length) { locked_ = mlock(start, length) == 0; }
  ~LockedPages() {
    if (locked_) munlock(start_, length_);
  }

 private:
  const void *start_;
  size_t length_;
  bool locked_;
};

}  // namespace staghorn
