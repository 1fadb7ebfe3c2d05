#include "ram/ram-chunk-job.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>

namespace staghorn {

static constexpr int kIdle = 20;  // one beyond the lowest nice value: SCHED_IDLE

static void LowerPriority(int niceness) {
  if (niceness >= kIdle) {
    sched_param param = {};
    if (sched_setscheduler(0, SCHED_IDLE, &param) == 0) return;
    niceness = 19;
  }
  setpriority(PRIO_PROCESS, 0, niceness);  // of this thread alone, on Linux
}

ChunkJob::ChunkJob(Napi::Object options)
    : length_(uint64_t(options.Get("length").As<Napi::Number>().Int64Value())),
      chunks_((length_ + kChunkBytes - 1) / kChunkBytes),
      threads_(options.Get("threads").As<Napi::Number>().Int32Value()),
      niceness_(options.Get("niceness").As<Napi::Number>().Int32Value()) {}

void ChunkJob::RunThreads() {
  std::vector<std::thread> threads;
  for (int i = 0; i < threads_; i++) {
    threads.emplace_back([this] {
      try {
        LowerPriority(niceness_);
        Work();
      } catch (const SystemError &error) {
        Fail(error.error, error.what());
      } catch (const std::bad_alloc &) {
        Fail(ENOMEM, "allocation");
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  if (error_ != 0) throw SystemError(error_, what_);
  ThrowIfCancelled();
}

int64_t ChunkJob::NextChunk() {
  if (cancelled() || stopped_) return -1;
  uint64_t index = next_.fetch_add(1);
  return index < chunks_ ? int64_t(index) : -1;
}

size_t ChunkJob::ChunkLength(uint64_t index) const {
  return size_t(std::min<uint64_t>(kChunkBytes, length_ - index * kChunkBytes));
}

void ChunkJob::Fail(int error, const std::string &what) {
  std::lock_guard<std::mutex> lock(mutex_);
  stopped_ = true;
  if (error_ != 0) return;
  error_ = error;
  what_ = what;
}

CheckingChunkJob::CheckingChunkJob(Napi::Object options) : ChunkJob(options) {
  Napi::Uint32Array checksums = options.Get("checksums").As<Napi::Uint32Array>();
  checksums_.assign(checksums.Data(), checksums.Data() + checksums.ElementLength());
}

void CheckingChunkJob::FoundBad(uint64_t chunk) {
  int64_t seen = first_bad_.load();
  while ((seen < 0 || int64_t(chunk) < seen) && !first_bad_.compare_exchange_weak(seen, int64_t(chunk))) continue;
  StopThreads();  // chunks below this one were all dealt out before it, and are finished by their threads
}

Napi::Value CheckingChunkJob::Result(Napi::Env env) {
  Napi::Object result = Napi::Object::New(env);
  int64_t bad = first_bad_.load();
  result.Set("ok", Napi::Boolean::New(env, bad < 0));
  result.Set("firstBadChunk", bad < 0 ? env.Null() : Napi::Value(Napi::Number::New(env, double(bad))));
  return result;
}

}  // namespace staghorn
