// What the stages of the GPU rasterizer hand to each other. docs/kernels/rasterization.md has the picture.
#pragma once
#include "device/launch.h"
#include "ops/rasterization.h"

namespace gaf::cuda {

constexpr int kTile = 16;          // pixels; a block of 256 threads, one a pixel
constexpr int kSubtileX = 8;       // pixels; a warp
constexpr int kSubtileY = 4;
constexpr int kSubtilesAcross = kTile / kSubtileX;
constexpr int kSubtiles = kSubtilesAcross * (kTile / kSubtileY);  // warps of a tile, bits of a mask
constexpr int kTilePixels = kTile * kTile;
constexpr int kBucket = 256;       // pairs between two checkpoints: what a block of backward works on
constexpr int kShortList = 2048;   // pairs of a tile that a small block sorts in its shared memory
constexpr int kFirstBuckets = 2;   // of a list that is cut: those that the tile's own block walks. With 3 a chain is longer, with 1 more is walked in vain
constexpr int kUncut = (kFirstBuckets + 1) * kBucket;  // pairs of the longest list that is not cut: a piece is done no sooner than its last bucket
static_assert(kFirstBuckets >= 2, "pieces have entries for capacity / 256 buckets, and a list may have that and one more");
constexpr const char* kBlendFwd = "rasterization_blend_fwd";  // what its kernels' failures are reported as

struct TileGrid {
  int width, height, tiles_x, tiles_y;
  int64_t n_tiles;          // of one camera
  int64_t rows_per_camera;  // rows of `splats`
};

inline TileGrid tile_grid(int64_t width, int64_t height, int64_t n_gaussians) {
  TileGrid g;
  g.width = int(width);
  g.height = int(height);
  g.tiles_x = int((width + kTile - 1) / kTile);
  g.tiles_y = int((height + kTile - 1) / kTile);
  g.n_tiles = int64_t(g.tiles_x) * g.tiles_y;
  g.rows_per_camera = (n_gaussians + kSplatGroup - 1) / kSplatGroup * kSplatGroup;
  return g;
}

// The pairs of an image. They lie in `kept`, or in scratch memory when nothing is kept.
//
// A pair has two numbers: its slot (pairs of one splat follow each other, splats by row) and its place (pairs of one tile follow each other,
// nearest first). When there are more pairs than `capacity`, no pair is made and every tile walks its camera's part of `order` instead.
struct Pairs {
  int64_t capacity;
  int64_t* counts;            // [2] visible splats, pairs
  uint32_t* n_long;           // [2] lists of more than kShortList pairs; of these, those that wait for a large block to sort them
  uint32_t* n_pieces;         // entries of `Pieces` that have been handed out
  uint32_t* order;            // [C, N] with too many pairs: rows of the camera's splats, nearest first, those not visible at the end
  uint32_t* first_slot;       // [rows] of a splat
  uint32_t* end_slot;         // [rows]
  uint2* tile_range;          // [tiles] begin and end of its places, or of its part of `order`
  uint32_t* stops;            // [tiles, 8] how many pairs of its tile each warp walked
  uint32_t* rows;             // [capacity] by place
  uint32_t* slots;            // [capacity] by place; null when nothing is kept
  int32_t* bucket_tile;       // [capacity / 256 + 1] from 1 to the pairs / 256: tile of a bucket after its tile's first; the last may be empty
  float* checkpoints;         // [capacity / 256 + 1, 1 + min(X, 4), 256] transmittance and colours before a bucket; null when nothing is kept
};

// What pairs are sorted by: nearest first, equally far in the order given, which is that of rows and so of slots. Positive floats order as their
// bits do. `number`: of the row, or the slot where those are kept.
__device__ __forceinline__ uint64_t pair_key(uint32_t depth, uint32_t number) { return uint64_t(depth) << 32 | number; }

struct PairKeys {
  uint64_t* keys;          // [max(capacity, C N)] by place
  uint64_t* more;          // as many, for lists that are sorted in pieces
  uint32_t* rows_by_slot;  // [capacity] when slots are kept
  uint32_t* long_lists;    // [tiles] whose
};

// Bucket k > 0 of a tile whose places start at `begin`: buckets of different tiles never share a number.
__host__ __device__ __forceinline__ int64_t bucket_number(uint32_t begin, int64_t k) { return begin / kBucket + k; }

__device__ __forceinline__ bool too_many(const Pairs& p) { return p.counts[1] > p.capacity; }

// What is left of a long list where its tile's block stops: an entry for what the block's pixels have seen, then one for each bucket behind.
struct Piece {
  uint32_t tile, bucket;  // of the first entry the last bucket that was walked
  uint32_t n_left;        // of the first entry: buckets that have not been walked yet
  uint32_t is_last;       // of the others: the block that walked it joins the tile's
  uint32_t walked[kSubtiles];  // pairs of the bucket that each warp walked; of warps that saw nothing to begin with, undefined
};

// A cut list of n pairs has ceil(n / 256) - kFirstBuckets + 1 entries, all lists together no more than capacity / 256.
struct Pieces {
  Piece* list;    // [capacity / 256]
  float* states;  // [capacity / 256, 1 + min(X, 4), 256] transmittance and colours
};

// One pass over the tiles: the channels of this pass, at most kSplatChannels.
struct BlendPass {
  RasterizationBlendArgs<float> args;
  TileGrid grid;
  Pairs pairs;
  Pieces pieces;
  int first_channel, n_channels;
};

// Bytes that `pairs_in` lays out.
int64_t pairs_bytes(const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep);
Pairs pairs_in(uint8_t* memory, const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep);

// The same for pieces, which live while a pass is blended.
int64_t pieces_bytes(const RasterizationBlendArgs<float>& a, int64_t capacity);
Pieces pieces_in(uint8_t* memory, const RasterizationBlendArgs<float>& a, int64_t capacity);

// Finds the tiles of the splats, and lays the pairs out tile by tile, nearest first. Also writes a.statistics, pairs blended as 0. Returns its
// scratch memory, which has room for pieces and is free for them.
uint8_t* find_pairs(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const Pairs& pairs, Stream stream);

// Its last step: sorts every tile's keys, and makes rows, slots and buckets of them; or `order`, when there are too many pairs.
void sort_tile_lists(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const Pairs& pairs, const PairKeys& keys, Stream stream);

// Blends one pass. Checkpoints are written where `pairs.checkpoints` is not null, the image and statistics unless `only_checkpoints`.
void blend_pass(const BlendPass& pass, bool only_checkpoints, Stream stream);

// Its second half: what was left of long lists.
void blend_rest(const BlendPass& pass, bool only_checkpoints, Stream stream);

template <class F>
void for_each_pass(BlendPass& pass, F&& f) {
  const int n = int(pass.args.n_channels);
  for (pass.first_channel = 0; pass.first_channel < n; pass.first_channel += kSplatChannels) {
    pass.n_channels = n - pass.first_channel < kSplatChannels ? n - pass.first_channel : kSplatChannels;
    f();
  }
}

// Calls f with the number of channels of the pass as a constant.
template <class F>
void with_channels(int n, F&& f) {
  switch (n) {
    case 1: return f(std::integral_constant<int, 1>{});
    case 2: return f(std::integral_constant<int, 2>{});
    case 3: return f(std::integral_constant<int, 3>{});
    default: return f(std::integral_constant<int, 4>{});
  }
}

}  // namespace gaf::cuda
