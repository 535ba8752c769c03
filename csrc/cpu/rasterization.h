// What the stages of the CPU rasterizer hand to each other, and the stages that exist once for each instruction set.
#pragma once
#include <cstdint>
#include <type_traits>

#include "ops/rasterization.h"

namespace gaf::cpu {

constexpr int kTile = 32;                     // pixels; with block masks the fewest (splat, tile) pairs at equal blending work
constexpr int kBlock = 4;                     // pixels: 4x4 = one vector of sixteen lanes
constexpr int kTileBlocks = kTile / kBlock;   // blocks along a tile's side; 8 x 8 blocks = the bits of a 64-bit mask

constexpr int64_t groups_of(int64_t n) { return (n + kSplatGroup - 1) / kSplatGroup; }

struct TileGrid {
  int width, height, tiles_x, tiles_y;
  int64_t n_tiles;          // of one camera
  int64_t rows_per_camera;  // rows of `splats`
};

// One tile that a splat touches; bit 8 r + c of `blocks` is the block in row r and column c of the tile.
struct Candidate {
  uint32_t tile, splat;
  uint64_t blocks;
};

// The same, in the order of tiles and there nearest first. Blending clears the bits of blocks that were opaque before the splat's turn came.
struct Pair {
  uint32_t splat;
  uint32_t slot;  // where backward's sums go, the low 32 bits
  uint64_t blocks;
};

// Backward's sums over the pixels of one pair.
template <class T>
struct alignas(16 * sizeof(T)) PairGrad {
  T value[16];
};

template <class T>
struct TileBlend {
  const RasterizationBlendArgs<T>* args;
  TileGrid grid;
  Pair* pairs;
  const int64_t* tile_begin;   // [tiles + 1]
  int64_t* tile_walked;        // [tiles] pairs of the tile that were blended
  const int64_t* first_slot;   // [rows + 1] backward: where the sums of a splat's pairs start
  PairGrad<T>* slots;          // [pairs]
  uint8_t* slot_used;          // [pairs]
  bool wide_slots;             // there are 2^32 pairs or more
  T* tile_v_background;        // [tiles, 4]
  int first_channel, n_channels;  // the channels of this pass, at most kSplatChannels
};

template <class T>
struct CandidateRange {
  const Splat<T>* splats;
  const uint32_t* order;  // rows of splats, nearest first
  int64_t begin, end;     // begin moves
  Candidate* out;
  int64_t n_out, capacity;
  uint32_t* tile_counts;  // [cameras x tiles]
  uint32_t* splat_counts; // [rows]
};

#define GAF_STAGES(isa)                                                                                                                  \
  namespace isa {                                                                                                                        \
  template <class T>                                                                                                                     \
  int64_t project_groups(const RasterizationProjectArgs<T>& a, int64_t camera, int64_t begin, int64_t end);                              \
  template <class T>                                                                                                                     \
  void project_groups_vjp(const RasterizationProjectArgs<T>& a, int64_t begin, int64_t end, T* v_viewmats);                              \
  template <class T>                                                                                                                     \
  void find_tiles(const TileGrid& grid, CandidateRange<T>& range);                                                                       \
  template <class T>                                                                                                                     \
  void blend_tile(const TileBlend<T>& b, int64_t tile);                                                                                  \
  template <class T>                                                                                                                     \
  void blend_tile_vjp(const TileBlend<T>& b, int64_t tile);                                                                              \
  template <class T>                                                                                                                     \
  void sum_pairs(const TileBlend<T>& b, int64_t begin, int64_t end);                                                                     \
  }
GAF_STAGES(baseline)
GAF_STAGES(avx2)
GAF_STAGES(avx512)
GAF_STAGES(float64)
#undef GAF_STAGES

}  // namespace gaf::cpu
