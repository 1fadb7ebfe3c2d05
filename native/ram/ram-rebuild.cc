// RAM that is stored in layers, put together again: into a file that can be mapped, or only to check it.
#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <cerrno>
#include <cstring>

#include "addon.h"
#include "gate/checksum.h"
#include "new-file.h"
#include "ram/ram-chunk-job.h"
#include "ram/ram-places.h"

namespace staghorn {

class RebuildJob : public CheckingChunkJob {
 public:
  explicit RebuildJob(Napi::Object options)
      : CheckingChunkJob(options), places_path_(options.Get("placesFile").As<Napi::String>().Utf8Value()) {
    if (options.Get("file").IsString()) path_ = options.Get("file").As<Napi::String>().Utf8Value();
    Napi::Array layers = options.Get("layers").As<Napi::Array>();
    for (uint32_t i = 0; i < layers.Length(); i++) {
      Napi::Value path = layers.Get(i);
      layer_paths_.push_back(path.IsString() ? path.As<Napi::String>().Utf8Value() : "");
    }
  }

 protected:
  void Run() override {
    struct Closing {  // not with the job, which a garbage collector ends
      RebuildJob &job;
      ~Closing() {
        job.layers_.clear();
        job.places_ = Descriptor();
      }
    } closing{*this};
    places_ = OpenFile(places_path_, O_RDONLY);
    for (const std::string &path : layer_paths_) layers_.push_back(path.empty() ? Descriptor() : OpenFile(path, O_RDONLY));
    if (path_.empty()) return RunThreads();
    NewFile file(path_, length_);
    file_ = file.fd();
    RunThreads();
    if (ok()) file.Appear();
  }

  void Work() override {
    PageBuffer chunk, frame, compressed;
    for (int64_t index; (index = NextChunk()) >= 0;) {
      if (!Rebuild(uint64_t(index), chunk.data(), frame.data(), compressed.data())) FoundBad(uint64_t(index));
      AddProgress(ChunkLength(uint64_t(index)));
    }
  }

 private:
  bool Rebuild(uint64_t index, uint8_t *chunk, uint8_t *frame, uint8_t *compressed) {
    const size_t length = ChunkLength(index), pages = length / kPageBytes;
    ChunkPlaces places;
    ReadAt(places_.get(), &places, sizeof places, index * sizeof places, "read the places of pages");
    bool needed[kLayersMax] = {}, any = false;
    for (size_t i = 0; i < pages; i++) {
      const uint8_t layer = places.layer[i];
      if (layer == 0) continue;
      if (layer > layers_.size() || places.slot[i] >= places.frame[layer - 1].pages) return false;
      needed[layer - 1] = any = true;
    }
    if (!any) return IsRight(index, ZeroChecksum(length));
    for (size_t i = 0; i < pages; i++) {
      if (places.layer[i] == 0) memset(chunk + i * kPageBytes, 0, kPageBytes);
    }
    for (size_t layer = 0; layer < layers_.size(); layer++) {
      if (needed[layer] && !ReadLayer(places, layer, pages, chunk, frame, compressed)) return false;
    }
    if (!IsRight(index, Crc32c(0, chunk, length))) return false;
    if (file_ >= 0) WriteNonZero(file_, chunk, length, index * kChunkBytes);
    return true;
  }

  bool ReadLayer(const ChunkPlaces &places, size_t layer, size_t pages, uint8_t *chunk, uint8_t *frame, uint8_t *compressed) {
    const PageFrame &stored = places.frame[layer];
    const int file = layers_[layer].get();
    if (stored.pages > kChunkPages || stored.bytes > stored.pages * kPageBytes || file < 0) return false;
    try {
      if (stored.IsRaw()) {
        ReadRuns(places, layer, pages, chunk);
        return true;
      }
      ReadAt(file, compressed, stored.bytes, stored.offset, "read pages");
    } catch (const SystemError &error) {
      if (error.error == EIO) return false;  // it ends before, or its disk is damaged
      throw;
    }
    if (ZSTD_decompress(frame, kChunkBytes, compressed, stored.bytes) != stored.pages * kPageBytes) return false;
    for (size_t i = 0; i < pages; i++) {
      if (places.layer[i] == layer + 1) memcpy(chunk + i * kPageBytes, frame + places.slot[i] * kPageBytes, kPageBytes);
    }
    return true;
  }

  // Only what is needed of a frame, and neighbours in one go.
  void ReadRuns(const ChunkPlaces &places, size_t layer, size_t pages, uint8_t *chunk) {
    for (size_t start = 0, end; start < pages; start = end) {
      end = start + 1;
      if (places.layer[start] != layer + 1) continue;
      while (end < pages && places.layer[end] == layer + 1 && places.slot[end] == places.slot[start] + (end - start)) end++;
      ReadAt(layers_[layer].get(), chunk + start * kPageBytes, (end - start) * kPageBytes,
             places.frame[layer].offset + places.slot[start] * kPageBytes, "read pages");
    }
  }

  std::string path_, places_path_;
  std::vector<std::string> layer_paths_;
  Descriptor places_;
  std::vector<Descriptor> layers_;
  int file_ = -1;
};

static Facility rebuild_facility([](Napi::Env env, Napi::Object exports) {
  exports.Set("startRebuildRam", Napi::Function::New(env, [](const Napi::CallbackInfo &info) {
                return Job::Start(info.Env(), std::make_unique<RebuildJob>(info[0].As<Napi::Object>()));
              }));
});

}  // namespace staghorn
