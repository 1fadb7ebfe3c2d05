// A file of RAM that is stored in full, against the checksums of its chunks.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "addon.h"
#include "gate/checksum.h"
#include "ram/ram-chunk-job.h"

namespace staghorn {

class VerifyJob : public CheckingChunkJob {
 public:
  explicit VerifyJob(Napi::Object options)
      : CheckingChunkJob(options), path_(options.Get("file").As<Napi::String>().Utf8Value()) {}

 protected:
  void Run() override {
    file_ = OpenFile(path_, O_RDONLY);
    struct stat status;
    if (fstat(file_.get(), &status) < 0) throw SystemError(errno, "fstat");
    if (uint64_t(status.st_size) != length_) return FoundBad(std::min(uint64_t(status.st_size), length_) / kChunkBytes);
    RunThreads();
    file_ = Descriptor();
  }

  void Work() override {
    PageBuffer buffer;
    for (int64_t chunk; (chunk = NextChunk()) >= 0;) {
      if (!IsRight(uint64_t(chunk), ChecksumOf(uint64_t(chunk), buffer.data()))) FoundBad(uint64_t(chunk));
      AddProgress(ChunkLength(uint64_t(chunk)));
    }
  }

 private:
  uint32_t ChecksumOf(uint64_t chunk, uint8_t *buffer) {
    const size_t length = ChunkLength(chunk);
    if (IsHole(file_.get(), chunk * kChunkBytes, length)) return ZeroChecksum(length);
    ReadAt(file_.get(), buffer, length, chunk * kChunkBytes, "read the RAM file");
    return Crc32c(0, buffer, length);
  }

  std::string path_;
  Descriptor file_;
};

static Facility verify_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startVerifyRam", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<VerifyJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
