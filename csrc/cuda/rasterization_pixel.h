// A pixel on its way through a tile's list, and where what it has seen is written: for blocks that walk a list from its beginning, and for those
// that take a piece of one.
#pragma once
#include "device/tile_splats.h"
#include "math/blend.h"
#include "rasterization.h"

namespace gaf::cuda {

constexpr int kTogether = 2;  // splats that a pixel looks at before they take their turns; four were slower

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

template <int C>
__device__ __forceinline__ void write_checkpoint(const BlendPass& p, const TileList& list, uint32_t at, const Pixel<C>& pixel) {
  const int64_t bucket = bucket_number(list.begin, (at - list.begin) / kBucket);
  const int planes = 1 + int(p.args.n_channels < kSplatChannels ? p.args.n_channels : kSplatChannels);
  float* out = p.pairs.checkpoints + bucket * planes * kTilePixels + threadIdx.x;
  out[0] = pixel.transmittance;
#pragma unroll
  for (int c = 0; c < C; ++c) out[(1 + c) * kTilePixels] = pixel.sum[c];
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

template <int C>
__device__ __forceinline__ void write_state(const BlendPass& p, uint32_t piece, const Pixel<C>& pixel) {
  float* out = state_of<C>(p, piece);
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

// Brings this thread's splat of the n from `at` on into shared memory: shape; origin and two colours; two colours; and which warps it concerns.
__device__ __forceinline__ void stage_splat(const BlendPass& p, const TilePlace& place, const TileList& list, uint32_t at, int n, float4* splats,
                                            unsigned* masks) {
  unsigned mask = 0;
  if (int(threadIdx.x) < n) {
    const TileSplat s = load_tile_splat(p, place, list.rows[at + threadIdx.x]);
    splats[3 * threadIdx.x] = s.shape;
    splats[3 * threadIdx.x + 1] = make_float4(s.origin.x, s.origin.y, s.color.x, s.color.y);
    splats[3 * threadIdx.x + 2] = make_float4(s.color.z, s.color.w, 0, 0);
    mask = s.subtiles;
  }
  masks[threadIdx.x] = mask;
}

// Passes a pixel on through the next splats of `todo`, and takes those away. Alphas do not depend on what lies before, so that they are found
// together: the frame waits for the tile with the longest list, that tile for one warp, and a warp for its loads.
template <int C>
__device__ __forceinline__ void walk_together(const float4* splats, unsigned& todo, float x, float y, Pixel<C>& pixel) {
  const float4* splat[kTogether];
  float alpha[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    const bool is_one = k == 0 || todo != 0;
    splat[k] = is_one ? splats + 3 * (__ffs(int(todo)) - 1) : splat[0];
    const float2 origin = *reinterpret_cast<const float2*>(splat[k] + 1);
    float u, v;
    const float power = splat_power(splat[k][0], origin, x, y, u, v);
    alpha[k] = is_one ? blend_weight(power, 1.f) : 0.f;
    todo &= todo - 1;
  }
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    const float2 two = reinterpret_cast<const float2*>(splat[k] + 1)[1];
    const float weight = alpha[k] * pixel.transmittance;
    pixel.transmittance -= weight;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      const float color = c == 0 ? two.x : c == 1 ? two.y : c == 2 ? splat[k][2].x : splat[k][2].y;
      pixel.sum[c] = fma_(weight, color, pixel.sum[c]);
    }
  }
}

}  // namespace gaf::cuda
