// The rest of long lists, a block a bucket, so that no tile keeps the frame waiting. Blending composes: a bucket's pixels start with all light, and
// what they let through and add is seen through what lies before. The block that is done last with a tile's buckets joins them, front to back.
//
// Who that is changes nothing: all that is added up and multiplied depends on the list alone.
#include "ops/device.h"
#include "rasterization_pixel.h"

namespace gaf::cuda {
namespace {

constexpr int kPieceBlocks = 4;  // of a multiprocessor; beyond, they take several pieces
constexpr int kJoinAtOnce = 4;   // pieces that are waited for together

// Whether this block is the last of a tile's n to say that it is done. Then it reads what the others wrote. All threads of the block must call.
__device__ __forceinline__ bool is_last(uint32_t& n_done, uint32_t n) {
  __threadfence();
  __syncthreads();
  const bool last = __syncthreads_or(threadIdx.x == 0 && atomicAdd(&n_done, 1u) == n - 1);
  __threadfence();
  return last;
}

// Buckets of a tile, of which `first` is the entry of what was seen before, and the picture. A warp that no longer sees stops, and what its pixels
// would have seen of the buckets behind is left out.
template <int C>
__device__ __forceinline__ void join_pieces(const BlendPass& p, const TilePlace& place, const TileList& list, uint32_t first, bool only_checkpoints) {
  const ThreadPixel at_pixel(p.grid, place);
  const bool checkpoints = p.pairs.slots && p.pairs.checkpoints;
  const uint32_t n = n_buckets(list);
  Pixel<C> pixel = read_state<C>(p, first);
  bool alive = __any_sync(kFullMask, pixel.transmittance >= float(kTransmittanceMin)), seen = true;
  uint32_t k = kFirstBuckets;
  while (seen && k < n) {
    Pixel<C> pieces[kJoinAtOnce] = {};
    const uint32_t piece = first + 1 + k - kFirstBuckets;
    const int n_left = int(n - k);
#pragma unroll
    for (int i = 0; i < kJoinAtOnce; ++i) {
      if (alive && i < n_left) pieces[i] = read_state<C>(p, piece + i);
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

template <int C>
__global__ void __launch_bounds__(kTilePixels) blend_pieces(BlendPass p, bool only_checkpoints) {
  GAF_SHARED(float4, splats, [3 * kBucket]);
  GAF_SHARED(unsigned, masks, [kBucket]);
  const uint32_t n_pieces = *p.pairs.n_pieces;
  for (uint32_t i = blockIdx.x; i < n_pieces; i += gridDim.x) {
    const uint32_t bucket = p.pieces.list[i].bucket, first = i - (bucket - kFirstBuckets) - 1;
    if (bucket < kFirstBuckets) continue;
    const TilePlace place(p.grid, p.pieces.list[i].tile);
    const ThreadPixel at_pixel(p.grid, place);
    const TileList list(p.pairs, place.tile);
    const float light = *state_of(p, first);  // what comes through to this list's rest; 0 outside the image
    const uint32_t at = list.begin + bucket * kBucket;
    const int n = int(list.end - at < kBucket ? list.end - at : kBucket);
    stage_splat(p, place, list, at, n, splats, masks);
    __syncthreads();
    const float x = float(at_pixel.x) + 0.5f, y = float(at_pixel.y) + 0.5f;
    Pixel<C> pixel = {};
    pixel.transmittance = 1;
    const bool saw = __any_sync(kFullMask, light >= float(kTransmittanceMin));
    bool alive = saw;
    uint32_t walked = kBucket;
    for (int from = 0; alive && from < n; from += kWarp) {
      unsigned todo = __ballot_sync(kFullMask, masks[from + lane_index()] >> warp_index() & 1);
      while (todo) walk_together(splats + 3 * from, todo, x, y, pixel);
      // At least what is left of the light when it comes here: where this is dark, joining has stopped in this bucket or before.
      alive = __any_sync(kFullMask, light * pixel.transmittance >= float(kTransmittanceMin));
      if (!alive) walked = uint32_t(from) + kWarp;
    }
    if (saw) write_state(p, i, pixel);
    if (saw && lane_index() == 0) p.pieces.list[i].walked[warp_index()] = walked;
    if (is_last(p.pieces.list[first].n_done, n_buckets(list) - kFirstBuckets)) join_pieces<C>(p, place, list, first, only_checkpoints);
  }
}

}  // namespace

void blend_rest(const BlendPass& pass, bool only_checkpoints, Stream stream) {
  if (pass.pairs.capacity <= kShortList) return;
  const int64_t most = pass.pairs.capacity / kBucket, at_once = kPieceBlocks * multiprocessors(stream.device);
  with_channels(pass.n_channels, [&](auto n) {
    launch(kBlendFwd, blend_pieces<decltype(n)::value>, dim3(unsigned(most < at_once ? most : at_once)), dim3(kTilePixels), 0, stream, pass,
           only_checkpoints);
  });
}

}  // namespace gaf::cuda
