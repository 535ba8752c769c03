// The (splat, tile) pairs of an image: visible splats sorted by depth once, their tiles found, pairs laid out tile by tile.
#pragma once
#include "rasterization.h"
#include "scratch.h"

namespace gaf::cpu {

TileGrid tile_grid(int64_t width, int64_t height, int64_t n_gaussians);

// What forward keeps for backward, one block of memory: header, then arrays. Offsets follow from the counts alone.
struct KeptHeader {
  int64_t n_pairs, n_tiles, n_rows;
};

class Kept {
 public:
  static size_t bytes(const KeptHeader& h);
  explicit Kept(void* memory) : memory_(static_cast<uint8_t*>(memory)) {}
  KeptHeader& header() const { return *reinterpret_cast<KeptHeader*>(memory_); }
  Pair* pairs() const { return reinterpret_cast<Pair*>(memory_ + 64); }
  int64_t* tile_begin() const { return reinterpret_cast<int64_t*>(pairs() + header().n_pairs); }  // [tiles + 1]
  int64_t* tile_walked() const { return tile_begin() + header().n_tiles + 1; }                     // [tiles]
  int64_t* first_slot() const { return tile_walked() + header().n_tiles; }                         // [rows + 1]

 private:
  uint8_t* memory_;
};

// Fills pairs, tile_begin and first_slot, and writes the first two of a.statistics.
template <class T>
Scratch find_pairs(const RasterizationBlendArgs<T>& a, const TileGrid& grid, int threads);

}  // namespace gaf::cpu
