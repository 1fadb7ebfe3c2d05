// Where the pages of a chunk are, when its RAM is stored in layers (docs/architecture.md, "The stored forms of RAM").
#pragma once

#include <cstdint>

#include "ram/ram-pages.h"

namespace staghorn {

constexpr size_t kLayersMax = 32;

// What one file of pages holds of one chunk: some of its pages, one after another, compressed by zstd if that is shorter.
struct PageFrame {
  uint64_t offset;
  uint32_t bytes;
  uint32_t pages;
  bool IsRaw() const { return bytes == pages * kPageBytes; }
};

// One record of a file of places, little-endian as the CPU; a chunk of zeros has a record of zeros.
struct ChunkPlaces {
  uint8_t layer[kChunkPages];  // 0: zeros; n: layer n, counted from 1, the first being the snapshot's own file
  uint8_t slot[kChunkPages];   // which page of that layer's frame
  PageFrame frame[kLayersMax];
};
static_assert(sizeof(ChunkPlaces) == 1024, "records of places are 1 KiB");

}  // namespace staghorn
