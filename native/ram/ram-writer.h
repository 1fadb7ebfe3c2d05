// The stored form of RAM: takes chunks, in any order and from several threads, and writes the files of a snapshot.
#pragma once

#include <napi.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <string>

#include "ram/ram-parent.h"

struct ZSTD_CCtx_s;

namespace staghorn {

// What one thread needs for its chunks.
struct ChunkScratch {
  ChunkScratch();
  ~ChunkScratch();
  PageBuffer chunk, packed, compressed;
  std::array<PageIdentity, kChunkPages> identities, known;
  ChunkPlaces places;
  ZSTD_CCtx_s *compressor;
};

class RamWriter {
 public:
  // Reads `file`, `length` and `storing`: null, or {layered, level, identities: {file, key} | null, parent: object | null}.
  explicit RamWriter(Napi::Object options);
  void Open();
  void Close();
  // Stores scratch.chunk, which is not all zeros for sure; returns how many bytes were written.
  size_t Write(uint64_t chunk, size_t length, ChunkScratch &scratch);
  uint64_t data_bytes() const { return data_bytes_.load(); }
  void Describe(Napi::Object result) const;

 private:
  void Identify(uint64_t chunk, size_t pages, ChunkScratch &scratch) const;
  size_t WriteFrame(uint64_t chunk, size_t pages, ChunkScratch &scratch);
  void CountLayers(const ChunkPlaces &places);

  std::string path_, identities_path_, places_path_;
  int given_fd_ = -1, file_ = -1;
  uint64_t length_;
  int level_ = 0;
  bool layered_ = false;
  std::unique_ptr<PageHasher> hasher_;
  std::optional<RamParent> parent_;
  std::array<uint8_t, kKeyBytes> key_{};
  Descriptor own_, identities_, places_;
  std::atomic<uint64_t> data_bytes_{0}, frames_end_{0};
  std::array<std::atomic<uint64_t>, kLayersMax> layer_pages_{};
};

}  // namespace staghorn
