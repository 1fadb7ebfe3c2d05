#include "ram/ram-parent.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "job.h"

namespace staghorn {

static constexpr uint8_t kParentLayer = 2;  // of a parent stored in full

RamParent::RamParent(Napi::Object options) : identities_path_(options.Get("identitiesFile").As<Napi::String>().Utf8Value()) {
  if (options.Get("placesFile").IsString()) places_path_ = options.Get("placesFile").As<Napi::String>().Utf8Value();
  Napi::Uint8Array layers = options.Get("layerOf").As<Napi::Uint8Array>();
  std::copy_n(layers.Data(), std::min(layers.ElementLength(), layer_of_.size()), layer_of_.begin());
}

void RamParent::Open() {
  identities_ = OpenFile(identities_path_, O_RDONLY);
  if (!places_path_.empty()) places_ = OpenFile(places_path_, O_RDONLY);
}

void RamParent::ReadIdentities(uint64_t chunk, size_t pages, PageIdentity *identities) const {
  ReadAt(identities_.get(), identities, pages * sizeof(PageIdentity),
         kIdentitiesHeaderBytes + chunk * kChunkPages * sizeof(PageIdentity), "read the parent's identities");
}

void RamParent::ReadPlaces(uint64_t chunk, size_t pages, ChunkPlaces *places) const {
  *places = {};
  if (places_.get() < 0) {
    for (size_t i = 0; i < pages; i++) {
      places->layer[i] = kParentLayer;
      places->slot[i] = uint8_t(i);
    }
    places->frame[kParentLayer - 1] = {chunk * kChunkBytes, uint32_t(pages * kPageBytes), uint32_t(pages)};
    return;
  }
  ChunkPlaces theirs;
  ReadAt(places_.get(), &theirs, sizeof theirs, chunk * sizeof theirs, "read the parent's places");
  for (size_t i = 0; i < pages; i++) {
    if (theirs.layer[i] == 0) continue;
    uint8_t layer = theirs.layer[i] <= kLayersMax ? layer_of_[theirs.layer[i]] : 0;
    if (layer < kParentLayer || layer > kLayersMax) throw SystemError(EBADMSG, "a layer that the parent does not name");
    places->layer[i] = layer;
    places->slot[i] = theirs.slot[i];
    places->frame[layer - 1] = theirs.frame[theirs.layer[i] - 1];
  }
}

}  // namespace staghorn
