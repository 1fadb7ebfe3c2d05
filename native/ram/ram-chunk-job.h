// A job over the chunks of some RAM: dealt out to threads, the first error stops all of them.
#pragma once

#include <atomic>
#include <mutex>
#include <string>

#include "job.h"
#include "ram/ram-pages.h"

namespace staghorn {

class ChunkJob : public Job {
 protected:
  // Reads `length`, `threads` and `niceness` of the options.
  explicit ChunkJob(Napi::Object options);

  virtual void Work() = 0;  // in each thread

  void RunThreads();
  // The next chunk's index, or -1 when there is none left or all shall stop.
  int64_t NextChunk();
  size_t ChunkLength(uint64_t index) const;
  void StopThreads() { stopped_ = true; }
  void AddProgress(size_t bytes) { control()->progress.store(double(done_.fetch_add(bytes) + bytes)); }

  uint64_t length_, chunks_;

 private:
  void Fail(int error, const std::string &what);

  int threads_, niceness_;
  std::atomic<uint64_t> next_{0}, done_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  int error_ = 0;
  std::string what_;
};

// A chunk job that compares chunks with checksums; the first chunk that differs ends it.
class CheckingChunkJob : public ChunkJob {
 protected:
  explicit CheckingChunkJob(Napi::Object options);  // reads `checksums` too

  bool IsRight(uint64_t chunk, uint32_t checksum) const { return checksums_[size_t(chunk)] == checksum; }
  void FoundBad(uint64_t chunk);
  bool ok() const { return first_bad_.load() < 0; }
  Napi::Value Result(Napi::Env env) override;

 private:
  std::vector<uint32_t> checksums_;
  std::atomic<int64_t> first_bad_{-1};
};

}  // namespace staghorn
