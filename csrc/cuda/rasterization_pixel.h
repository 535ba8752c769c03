// A pixel on its way through a tile's list, and where what it has seen is written: for blocks that walk a list from its beginning, and for those
// that take a piece of one.
#pragma once
#include "device/tile_splats.h"
#include "math/blend.h"
#include "rasterization.h"

namespace gaf::cuda {

// What this thread's pixel has seen so far.
template <int C>
struct Pixel {
  float transmittance, sum[C];
};

// Seen through what lies before it.
template <int C>
__device__ __forceinline__ void pass_on(Pixel<C>& pixel, const Pixel<C>& behind) {
#pragma unroll
  for (int c = 0; c < C; ++c) pixel.sum[c] = fma_(pixel.transmittance, behind.sum[c], pixel.sum[c]);
  pixel.transmittance *= behind.transmittance;
}

// A pixel in memory: a plane of a tile's pixels for its transmittance, and one for each channel.
template <int C>
__device__ __forceinline__ void write_state(float* out, const Pixel<C>& pixel) {
  out[0] = pixel.transmittance;
#pragma unroll
  for (int c = 0; c < C; ++c) out[(1 + c) * kTilePixels] = pixel.sum[c];
}

template <int C>
__device__ __forceinline__ Pixel<C> read_state(const float* in) {
  Pixel<C> pixel;
  pixel.transmittance = in[0];
#pragma unroll
  for (int c = 0; c < C; ++c) pixel.sum[c] = in[(1 + c) * kTilePixels];
  return pixel;
}

template <int C>
__device__ __forceinline__ void write_checkpoint(const BlendPass& p, const TileList& list, uint32_t at, const Pixel<C>& pixel) {
  const int64_t bucket = bucket_number(list.begin, (at - list.begin) / kBucket);
  const int planes = 1 + int(p.args.n_channels < kSplatChannels ? p.args.n_channels : kSplatChannels);
  write_state(p.pairs.checkpoints + bucket * planes * kTilePixels + threadIdx.x, pixel);
}

template <int C>
__device__ __forceinline__ void write_pixel(const BlendPass& p, int camera, int64_t number, const Pixel<C>& pixel) {
  const RasterizationBlendArgs<float>& a = p.args;
  float* out = a.render + number * a.n_channels + p.first_channel;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const float background = a.backgrounds ? a.backgrounds[camera * a.n_channels + p.first_channel + c] : 0.f;
    out[c] = fma_(pixel.transmittance, background, pixel.sum[c]);
  }
  if (p.first_channel == 0) a.alphas[number] = 1 - pixel.transmittance;
}

__device__ __forceinline__ void count_blended(const BlendPass& p, uint32_t n) {
  atomicAdd(reinterpret_cast<unsigned long long*>(p.args.statistics + 2), (unsigned long long)(n));
}

__device__ __forceinline__ uint32_t n_buckets(const TileList& list) { return (list.end - list.begin + kBucket - 1) / kBucket; }

// Where a tile's own block stops.
__device__ __forceinline__ uint32_t first_end(const TileList& list) {
  return list.whole || list.end - list.begin <= kUncut ? list.end : list.begin + kFirstBuckets * kBucket;
}

// This thread's part of an entry of `Pieces`. A pass of fewer channels than others has its entries closer together.
template <int C>
__device__ __forceinline__ float* state_of(const BlendPass& p, uint32_t piece) {
  return p.pieces.states + (int64_t(piece) * (1 + C) * kTilePixels + threadIdx.x);
}

// What a block keeps of a bucket in shared memory.
struct Stage {
  static constexpr int kChunks = kBucket / kWarp;  // after each a warp looks whether it still sees

  StagedSplat splats[kBucket + 1];                          // the last is unseen
  unsigned masks[kBucket];                                  // the warps that a splat concerns
  uint2 lists[kSubtiles][kBucket / kTogether + kChunks];    // of each warp: where its splats lie, four at a time, numbers of bytes
};

__device__ __forceinline__ void start_stage(Stage& stage) {
  if (threadIdx.x == 0) stage.splats[kBucket] = unseen_splat();
}

// Brings this thread's splat of the n from `at` on.
__device__ __forceinline__ void stage_splat(const BlendPass& p, const TilePlace& place, const TileList& list, uint32_t at, int n, Stage& stage) {
  unsigned mask = 0;
  if (int(threadIdx.x) < n) {
    const TileSplat s = load_tile_splat(p, place, list.rows[at + threadIdx.x]);
    stage.splats[threadIdx.x] = staged(s);
    mask = s.subtiles;
  }
  stage.masks[threadIdx.x] = mask;
}

// Lists this warp's splats, chunk by chunk; each chunk's are filled up with the unseen one. Lane k gets where chunk k's groups of four end. All 32
// lanes must call.
__device__ __forceinline__ int list_splats(Stage& stage) {
  static_assert(kTogether == 4 && sizeof(stage.splats) <= 0xffff);
  uint16_t* list = reinterpret_cast<uint16_t*>(stage.lists[warp_index()]);
  int n = 0, my_end = 0;
#pragma unroll
  for (int k = 0; k < Stage::kChunks; ++k) {
    const bool is_mine = stage.masks[k * kWarp + lane_index()] >> warp_index() & 1;
    const unsigned all = __ballot_sync(kFullMask, is_mine);
    const int count = __popc(all), padded = (count + kTogether - 1) / kTogether * kTogether;
    if (is_mine) list[n + __popc(all & ((1u << lane_index()) - 1))] = uint16_t((k * kWarp + lane_index()) * int(sizeof(StagedSplat)));
    if (lane_index() < padded - count) list[n + count + lane_index()] = uint16_t(kBucket * sizeof(StagedSplat));
    n += padded;
    if (lane_index() == k) my_end = n / kTogether;
  }
  __syncwarp();
  return my_end;
}

// Passes a pixel on through four splats. Alphas do not depend on what lies before, so that they are found together, and without a branch between
// them: a warp's way through a list is its longest chain, and four take little longer than one.
template <int C>
__device__ __forceinline__ void walk_together(const Stage& stage, uint2 four, float x, float y, Pixel<C>& pixel) {
  const StagedSplat* splat[kTogether];
  float alpha[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    const uint32_t two = k < 2 ? four.x : four.y, at = k % 2 == 0 ? two & 0xffff : two >> 16;
    splat[k] = reinterpret_cast<const StagedSplat*>(reinterpret_cast<const char*>(stage.splats) + at);
    float u, v;
    alpha[k] = blend_weight(splat_power(*splat[k], x, y, u, v), 1.f);
  }
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    const float weight = alpha[k] * pixel.transmittance;
    pixel.transmittance -= weight;
#pragma unroll
    for (int c = 0; c < C; ++c) pixel.sum[c] = fma_(weight, splat[k]->color(c), pixel.sum[c]);
  }
}

// Walks the n staged splats until no pixel of the warp sees any more: sees(transmittance) says which does. Returns how many were walked then, or 0.
template <int C, class Sees>
__device__ __forceinline__ int walk_stage(Stage& stage, int n, float x, float y, Pixel<C>& pixel, Sees&& sees) {
  const int my_end = list_splats(stage);
  const uint2* list = stage.lists[warp_index()];
  int i = 0;
#pragma unroll 1
  for (int first = 0; first < n; first += kWarp) {
    const int end = __shfl_sync(kFullMask, my_end, first / kWarp);
#pragma unroll 1
    for (; i < end; ++i) walk_together(stage, list[i], x, y, pixel);
    if (!__any_sync(kFullMask, sees(pixel.transmittance))) return first + kWarp;
  }
  return 0;
}

}  // namespace gaf::cuda
