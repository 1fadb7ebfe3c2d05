// RAM of a process or a memory file into a snapshot's files, by several threads: each reads a chunk, stores it, and only
// then takes the next, so that memory is bounded by the number of threads.
#include <algorithm>
#include <ctime>
#include <memory>

#include "addon.h"
#include "gate/checksum.h"
#include "ram/ram-chunk-job.h"
#include "ram/ram-rate.h"
#include "ram/ram-source.h"
#include "ram/ram-writer.h"

namespace staghorn {

class SaveJob : public ChunkJob {
 public:
  explicit SaveJob(Napi::Object options) : ChunkJob(options), source_(options), writer_(options), checksums_(chunks_) {
    if (options.Get("limit").IsExternal()) limit_ = *options.Get("limit").As<Napi::External<std::shared_ptr<RateLimit>>>().Data();
  }

 protected:
  void Run() override {
    // Not with the job, which a garbage collector ends: whoever waited may remove or unmount what was open here.
    struct Closing {
      RamWriter &writer;
      ~Closing() { writer.Close(); }
    } closing{writer_};
    source_.Open();
    writer_.Open();
    RunThreads();
  }

  void Work() override {
    ChunkScratch scratch;
    for (int64_t chunk; (chunk = NextChunk()) >= 0;) {
      SaveChunk(uint64_t(chunk), scratch);
      AddProgress(ChunkLength(uint64_t(chunk)));
    }
  }

  Napi::Value Result(Napi::Env env) override {
    Napi::Object result = Napi::Object::New(env);
    writer_.Describe(result);
    Napi::Uint32Array checksums = Napi::Uint32Array::New(env, checksums_.size());
    std::copy(checksums_.begin(), checksums_.end(), checksums.Data());
    result.Set("chunkChecksums", checksums);
    return result;
  }

 private:
  void SaveChunk(uint64_t chunk, ChunkScratch &scratch) {
    const size_t length = ChunkLength(chunk);
    if (!source_.Read(chunk * kChunkBytes, length, scratch.chunk.data())) {
      checksums_[chunk] = ZeroChecksum(length);
      return;
    }
    checksums_[chunk] = Crc32c(0, scratch.chunk.data(), length);
    const size_t written = writer_.Write(chunk, length, scratch);
    if (limit_ != nullptr && written > 0) WaitUntil(limit_->Spend(written));
  }

  void WaitUntil(int64_t at_ns) {
    constexpr int64_t kSliceNs = 20000000;
    for (int64_t left; !cancelled() && (left = at_ns - MonotonicNs()) > 0;) {
      timespec pause = {0, long(std::min(left, kSliceNs))};
      nanosleep(&pause, nullptr);
    }
  }

  RamSource source_;
  RamWriter writer_;
  std::shared_ptr<RateLimit> limit_;
  std::vector<uint32_t> checksums_;
};

static Facility save_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startSaveRam", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<SaveJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
