#include "ram/ram-writer.h"

#include <fcntl.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "job.h"

namespace staghorn {

static constexpr char kIdentitiesMagic[16] = "staghorn pages1";

ChunkScratch::ChunkScratch() : compressed(2 * kChunkBytes), compressor(ZSTD_createCCtx()) {
  static_assert(2 * kChunkBytes >= ZSTD_COMPRESSBOUND(kChunkBytes), "a chunk that does not compress has room");
  if (compressor == nullptr) throw SystemError(ENOMEM, "compressor");
}

ChunkScratch::~ChunkScratch() { ZSTD_freeCCtx(compressor); }

RamWriter::RamWriter(Napi::Object options) : length_(uint64_t(options.Get("length").As<Napi::Number>().Int64Value())) {
  if (options.Get("file").IsString()) path_ = options.Get("file").As<Napi::String>().Utf8Value();
  else given_fd_ = options.Get("file").As<Napi::Number>().Int32Value();
  if (!options.Get("storing").IsObject()) return;
  Napi::Object storing = options.Get("storing").As<Napi::Object>();
  level_ = storing.Get("level").As<Napi::Number>().Int32Value();
  if (storing.Get("placesFile").IsString()) places_path_ = storing.Get("placesFile").As<Napi::String>().Utf8Value();
  layered_ = !places_path_.empty();
  if (storing.Get("identities").IsObject()) {
    Napi::Object identities = storing.Get("identities").As<Napi::Object>();
    identities_path_ = identities.Get("file").As<Napi::String>().Utf8Value();
    Napi::Uint8Array key = identities.Get("key").As<Napi::Uint8Array>();
    std::copy_n(key.Data(), std::min(key.ElementLength(), kKeyBytes), key_.begin());
    hasher_ = std::make_unique<PageHasher>(key_.data());
  }
  if (storing.Get("parent").IsObject()) parent_.emplace(storing.Get("parent").As<Napi::Object>());
}

static void Resize(int fd, uint64_t length) {
  if (ftruncate(fd, off_t(length)) < 0) throw SystemError(errno, "ftruncate");
}

// Emptied first: what is not written afterwards must read as zeros.
void RamWriter::Open() {
  if (given_fd_ < 0) own_ = OpenFile(path_, O_RDWR | O_CREAT | O_TRUNC);
  file_ = given_fd_ < 0 ? own_.get() : given_fd_;
  Resize(file_, 0);
  if (!layered_) Resize(file_, length_);
  const uint64_t pages = length_ / kPageBytes, chunks = (length_ + kChunkBytes - 1) / kChunkBytes;
  if (hasher_ != nullptr) {
    identities_ = OpenFile(identities_path_, O_RDWR | O_CREAT | O_TRUNC);
    Resize(identities_.get(), kIdentitiesHeaderBytes + pages * sizeof(PageIdentity));
    WriteAt(identities_.get(), kIdentitiesMagic, sizeof kIdentitiesMagic, 0);
    WriteAt(identities_.get(), key_.data(), kKeyBytes, sizeof kIdentitiesMagic);
  }
  if (layered_) {
    places_ = OpenFile(places_path_, O_RDWR | O_CREAT | O_TRUNC);
    Resize(places_.get(), chunks * sizeof(ChunkPlaces));
  }
  if (parent_) parent_->Open();
}

void RamWriter::Close() {
  for (Descriptor *file : {&own_, &identities_, &places_}) *file = Descriptor();
  parent_.reset();
}

size_t RamWriter::Write(uint64_t chunk, size_t length, ChunkScratch &scratch) {
  const size_t pages = length / kPageBytes;
  if (hasher_ != nullptr) Identify(chunk, pages, scratch);
  const size_t written =
      layered_ ? WriteFrame(chunk, pages, scratch) : WriteNonZero(file_, scratch.chunk.data(), length, chunk * kChunkBytes);
  data_bytes_ += written;
  return written;
}

void RamWriter::Identify(uint64_t chunk, size_t pages, ChunkScratch &scratch) const {
  bool any = false;
  for (size_t i = 0; i < pages; i++) {
    const uint8_t *page = scratch.chunk.data() + i * kPageBytes;
    const bool zero = IsZeroPage(page);
    scratch.identities[i] = zero ? PageIdentity{} : hasher_->Identify(page);
    any |= !zero;
  }
  if (!any) return;
  WriteAt(identities_.get(), scratch.identities.data(), pages * sizeof(PageIdentity),
          kIdentitiesHeaderBytes + chunk * kChunkPages * sizeof(PageIdentity));
}

// Pages that the parent has stay where they are; the others become this snapshot's frame of the chunk.
size_t RamWriter::WriteFrame(uint64_t chunk, size_t pages, ChunkScratch &scratch) {
  ChunkPlaces &places = scratch.places;
  places = {};
  if (parent_) {
    parent_->ReadIdentities(chunk, pages, scratch.known.data());
    parent_->ReadPlaces(chunk, pages, &places);
  }
  uint32_t own = 0;
  bool any = false;
  for (size_t i = 0; i < pages; i++) {
    const uint8_t *page = scratch.chunk.data() + i * kPageBytes;
    if (IsZeroPage(page)) {
      places.layer[i] = places.slot[i] = 0;
      continue;
    }
    any = true;
    if (places.layer[i] != 0 && hasher_ != nullptr && scratch.identities[i] == scratch.known[i]) continue;
    memcpy(scratch.packed.data() + own * kPageBytes, page, kPageBytes);
    places.layer[i] = 1;
    places.slot[i] = uint8_t(own++);
  }
  if (!any) return 0;
  const uint8_t *frame = scratch.packed.data();
  size_t bytes = own * kPageBytes;
  if (own > 0 && level_ != 0) {
    size_t shorter = ZSTD_compressCCtx(scratch.compressor, scratch.compressed.data(), 2 * kChunkBytes, frame, bytes, level_);
    if (ZSTD_isError(shorter)) throw SystemError(EIO, ZSTD_getErrorName(shorter));
    if (shorter < bytes) {
      frame = scratch.compressed.data();
      bytes = shorter;
    }
  }
  const uint64_t offset = frames_end_.fetch_add(bytes);
  if (own > 0) places.frame[0] = {offset, uint32_t(bytes), own};
  WriteAt(file_, frame, bytes, offset);
  WriteAt(places_.get(), &places, sizeof places, chunk * sizeof places);
  CountLayers(places);
  return bytes;
}

void RamWriter::CountLayers(const ChunkPlaces &places) {
  std::array<uint64_t, kLayersMax + 1> counts{};
  for (uint8_t layer : places.layer) counts[layer]++;
  for (size_t i = 0; i < kLayersMax; i++) layer_pages_[i] += counts[i + 1];
}

void RamWriter::Describe(Napi::Object result) const {
  Napi::Env env = result.Env();
  result.Set("fileBytes", Napi::Number::New(env, double(layered_ ? frames_end_.load() : length_)));
  result.Set("dataBytes", Napi::Number::New(env, double(data_bytes_.load())));
  Napi::Array pages = Napi::Array::New(env, kLayersMax);
  for (uint32_t i = 0; i < kLayersMax; i++) pages.Set(i, Napi::Number::New(env, double(layer_pages_[i].load())));
  result.Set("layerPages", pages);
}

}  // namespace staghorn
