// The rest of long lists, a block a bucket, so that no tile keeps the frame waiting. Blending composes: a bucket's pixels start with all light, and
// what they let through and add is seen through what lies before. The block that is done last with a tile's buckets joins them, front to back.
//
// Who that is changes nothing: all that is added up and multiplied depends on the list alone.
#include "ops/device.h"
#include "rasterization_pixel.h"

namespace gaf::cuda {
namespace {

constexpr int kPieceBlocks = 4;  // of a multiprocessor; beyond, they take several pieces
constexpr int kJoinAtOnce = 3;   // pieces that are waited for together

// The entry of what was seen before entry i, which is a bucket.
__device__ __forceinline__ uint32_t first_piece(const BlendPass& p, uint32_t i) { return i - 1 - (p.pieces.list[i].bucket - kFirstBuckets); }

// Whether this block is the last of a tile's to say that it is done. Then it reads what the others wrote. All threads of the block must call.
__device__ __forceinline__ bool is_last(uint32_t& n_left) {
  __threadfence();
  __syncthreads();
  const bool last = __syncthreads_or(threadIdx.x == 0 && atomicAdd(&n_left, ~0u) == 1);
  __threadfence();
  return last;
}

// Buckets of a tile, of which `first` is the entry of what was seen before, and the picture. A warp that no longer sees stops, and what its pixels
// would have seen of the buckets behind is left out.
template <int C>
__device__ __forceinline__ void join_pieces(const BlendPass& p, uint32_t tile, uint32_t first, bool only_checkpoints) {
  const TilePlace place(p.grid, tile);
  const TileList list(p.pairs, tile);
  const ThreadPixel at_pixel(p.grid, place);
  const bool checkpoints = p.pairs.slots && p.pairs.checkpoints;
  const uint32_t n = n_buckets(list);
  Pixel<C> pixel = read_state<C>(state_of<C>(p, first));
  bool alive = __any_sync(kFullMask, pixel.transmittance >= float(kTransmittanceMin)), seen = true;
  uint32_t k = kFirstBuckets;
  while (seen && k < n) {
    Pixel<C> pieces[kJoinAtOnce] = {};
    const uint32_t piece = first + 1 + k - kFirstBuckets;
    const float* states = state_of<C>(p, piece);
    const int n_left = int(n - k);
#pragma unroll
    for (int i = 0; i < kJoinAtOnce; ++i) {
      if (alive && i < n_left) pieces[i] = read_state<C>(states + i * (1 + C) * kTilePixels);
    }
#pragma unroll
    for (int i = 0; i < kJoinAtOnce; ++i) {
      if (i >= n_left || !(seen = __syncthreads_or(alive))) break;
      if (checkpoints) write_checkpoint(p, list, list.begin + k * kBucket, pixel);
      if (alive) {
        pass_on(pixel, pieces[i]);
        alive = __any_sync(kFullMask, pixel.transmittance >= float(kTransmittanceMin));
        if (!alive && p.pairs.slots && lane_index() == 0) {
          p.pairs.stops[place.tile * kSubtiles + warp_index()] = k * kBucket + p.pieces.list[piece + i].walked[warp_index()];
        }
      }
      ++k;
    }
  }
  if (only_checkpoints) return;
  if (at_pixel.inside) write_pixel(p, place.camera, at_pixel.number, pixel);
  if (threadIdx.x == 0 && p.first_channel == 0) count_blended(p, min(k * kBucket, list.end - list.begin));
}

// Walks one bucket as blend_tiles walks a list. Returns whether this block is the last of its tile's.
template <int C>
__device__ __forceinline__ bool blend_piece(const BlendPass& p, uint32_t i, uint32_t bucket, Stage& stage) {
  const TilePlace place(p.grid, p.pieces.list[i].tile);
  const ThreadPixel at_pixel(p.grid, place);
  const TileList list(p.pairs, place.tile);
  const float light = *state_of<C>(p, first_piece(p, i));  // what comes through to the first of the tile's pieces; 0 outside the image
  const float x = float(at_pixel.x) + 0.5f, y = float(at_pixel.y) + 0.5f;
  Pixel<C> pixel = {};
  pixel.transmittance = 1;
  const bool alive = __any_sync(kFullMask, light >= float(kTransmittanceMin));
  uint32_t walked = kBucket;
  if (__syncthreads_or(alive)) {
    const uint32_t at = list.begin + bucket * kBucket;
    const int n = int(min(at + kBucket, list.end) - at);
    stage_splat(p, place, list, at, n, stage);
    __syncthreads();
    if (alive) {
      // No less than what is left when the light comes here: where this is dark, joining stops in this bucket or before.
      const int dark = walk_stage(stage, n, x, y, pixel, [light](float left) { return light * left >= float(kTransmittanceMin); });
      if (dark > 0) walked = uint32_t(dark);
    }
  }
  if (alive) {
    write_state(state_of<C>(p, i), pixel);
    if (lane_index() == 0) p.pieces.list[i].walked[warp_index()] = walked;
  }
  const bool last = is_last(p.pieces.list[first_piece(p, i)].n_left);
  if (threadIdx.x == 0) p.pieces.list[i].is_last = last;
  return last;
}

// Joining has a loop of its own, after the other: so neither has the other's registers.
template <int C>
__global__ void __launch_bounds__(kTilePixels, 4) blend_pieces(BlendPass p, bool only_checkpoints) {
  GAF_SHARED(Stage, stage);
  const uint32_t n_pieces = *p.pairs.n_pieces;
  bool joins = false;
  start_stage(stage);
  for (uint32_t i = blockIdx.x; i < n_pieces; i += gridDim.x) {
    const uint32_t bucket = p.pieces.list[i].bucket;
    if (bucket >= kFirstBuckets) joins |= blend_piece<C>(p, i, bucket, stage);
  }
  if (!joins) return;
  __syncthreads();
  for (uint32_t i = blockIdx.x; i < n_pieces; i += gridDim.x) {
    const Piece& piece = p.pieces.list[i];
    if (piece.bucket >= kFirstBuckets && piece.is_last) join_pieces<C>(p, piece.tile, first_piece(p, i), only_checkpoints);
  }
}

}  // namespace

void blend_rest(const BlendPass& pass, bool only_checkpoints, Stream stream) {
  if (pass.pairs.capacity <= kUncut) return;
  const int64_t most = pass.pairs.capacity / kBucket, at_once = kPieceBlocks * multiprocessors(stream.device);
  with_channels(pass.n_channels, [&](auto n) {
    launch(kBlendFwd, blend_pieces<decltype(n)::value>, dim3(unsigned(most < at_once ? most : at_once)), dim3(kTilePixels), 0, stream, pass,
           only_checkpoints);
  });
}

}  // namespace gaf::cuda
