// What a snapshot that RAM is compared with has of it: the identities and the places of its pages.
#pragma once

#include <napi.h>

#include <array>
#include <string>

#include "ram/page-identity.h"
#include "ram/ram-places.h"

namespace staghorn {

constexpr uint64_t kIdentitiesHeaderBytes = 4096;

class RamParent {
 public:
  // {identitiesFile, placesFile: string | null, layerOf: Uint8Array}. Without places its RAM is stored in full.
  explicit RamParent(Napi::Object options);
  void Open();
  void ReadIdentities(uint64_t chunk, size_t pages, PageIdentity *identities) const;
  // The places of a chunk's pages, in the layers of the snapshot that is being written.
  void ReadPlaces(uint64_t chunk, size_t pages, ChunkPlaces *places) const;

 private:
  std::string identities_path_, places_path_;
  Descriptor identities_, places_;
  std::array<uint8_t, kLayersMax + 1> layer_of_{};  // of the parent's layers, in the new snapshot; 0: none
};

}  // namespace staghorn
