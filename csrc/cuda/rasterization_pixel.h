// What a pixel has seen of a tile's list, and where that is written: the image, checkpoints for backward, and what a piece of a list leaves.
//
// A list that would hold up the frame is cut into its buckets, a block each. A piece starts with all light, so that nobody waits for what lies
// before; what it lets through and adds goes where the next piece's checkpoint belongs, or, of the last piece, into the image. Then the pieces are
// joined in their order, which leaves true checkpoints and the image in the same places.
#pragma once
#include "device/tile_splats.h"
#include "math/constants.h"
#include "rasterization.h"

namespace gaf::cuda {

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
__device__ __forceinline__ bool warp_sees(const Pixel<C>& pixel) {
  return __any_sync(kFullMask, pixel.transmittance >= float(kTransmittanceMin));
}

// This thread's part of the checkpoint before bucket k > 0 of a list.
__device__ __forceinline__ float* checkpoint_of(const BlendPass& p, const TileList& list, uint32_t k) {
  const int planes = 1 + int(p.args.n_channels < kSplatChannels ? p.args.n_channels : kSplatChannels);
  return p.pairs.checkpoints + bucket_number(list.begin, k) * planes * kTilePixels + threadIdx.x;
}

template <int C>
__device__ __forceinline__ void write_checkpoint(const BlendPass& p, const TileList& list, uint32_t k, const Pixel<C>& pixel) {
  float* out = checkpoint_of(p, list, k);
  out[0] = pixel.transmittance;
#pragma unroll
  for (int c = 0; c < C; ++c) out[(1 + c) * kTilePixels] = pixel.sum[c];
}

template <int C>
__device__ __forceinline__ void write_pixel(const BlendPass& p, int64_t tile, const Pixel<C>& pixel) {
  const TilePlace place(p.grid, tile);
  const ThreadPixel at(p.grid, place);
  if (!at.inside) return;
  const RasterizationBlendArgs<float>& a = p.args;
  float* out = a.render + at.number * a.n_channels + p.first_channel;
#pragma unroll
  for (int c = 0; c < C; ++c) {
    const float background = a.backgrounds ? a.backgrounds[place.camera * a.n_channels + p.first_channel + c] : 0.f;
    out[c] = fma_(pixel.transmittance, background, pixel.sum[c]);
  }
  if (p.first_channel == 0) a.alphas[at.number] = 1 - pixel.transmittance;
}

// How many pairs of its tile this warp walked.
__device__ __forceinline__ void write_stop(const BlendPass& p, uint32_t tile, uint32_t n) {
  if (p.pairs.slots && lane_index() == 0) p.pairs.stops[tile * kSubtiles + warp_index()] = n;
}

__device__ __forceinline__ void count_blended(const BlendPass& p, uint32_t n) {
  atomicAdd(reinterpret_cast<unsigned long long*>(p.args.statistics + 2), (unsigned long long)(n));
}

// Only lists that are in pairs are cut, and only where one pass has all channels: pieces need the places of its checkpoints and of the image.
__device__ __forceinline__ bool is_cut(const BlendPass& p, const TileList& list) {
  return p.pairs.pieces && !list.whole && is_one_of_few(p.pairs, list.end - list.begin, p.at_once);
}

// How many pieces have been cut off lists.
__device__ __forceinline__ uint32_t n_pieces_of(const BlendPass& p) {
  const uint32_t n_long = *p.pairs.n_long, n_pieces = *p.pairs.n_pieces;  // both asked for before either decides
  return p.pairs.pieces && n_long <= p.at_once && !too_many(p.pairs) ? n_pieces : 0;
}

__device__ __forceinline__ uint32_t n_buckets_of(const TileList& list) { return (list.end - list.begin - 1) / kBucket + 1; }

__device__ __forceinline__ TileList piece_of(TileList list, uint32_t k) {
  list.begin += k * kBucket;
  if (list.end - list.begin > kBucket) list.end = list.begin + kBucket;
  return list;
}

// Once a piece is opaque by itself, those behind it need not be walked: joining ends before them in any case. What is written down for piece k is
// this less k, so that the greatest number is the nearest piece's, and 0 says that none is.
constexpr uint32_t kOpaque = ~uint32_t(0);

// Whether a piece before piece k is known to be opaque. All threads of the block must call.
__device__ __forceinline__ bool is_hidden(const BlendPass& p, uint32_t tile, uint32_t k) {
  return __syncthreads_or(threadIdx.x == 0 && atomicOr(&p.pairs.opaque_pieces[tile], 0u) > kOpaque - k);
}

// How many of n pieces count.
__device__ __forceinline__ uint32_t pieces_to_join(uint32_t opaque, uint32_t n) { return opaque > 0 ? kOpaque - opaque + 1 : n; }

// The piece's first pair is at `begin`. All threads of the block must call.
template <int C>
__device__ __forceinline__ void leave_piece(const BlendPass& p, int64_t tile, uint32_t begin, const Pixel<C>& pixel) {
  const TileList list(p.pairs, tile);
  const TilePlace place(p.grid, tile);
  const ThreadPixel at(p.grid, place);
  const uint32_t k = (begin - list.begin) / kBucket;
  if (k + 1 < n_buckets_of(list)) {
    write_checkpoint(p, list, k + 1, pixel);
  } else if (at.inside) {
    p.args.alphas[at.number] = pixel.transmittance;
#pragma unroll
    for (int c = 0; c < C; ++c) p.args.render[at.number * C + c] = pixel.sum[c];
  }
  const bool is_opaque = !__syncthreads_or(warp_sees(pixel));
  if (is_opaque && threadIdx.x == 0) atomicMax(&p.pairs.opaque_pieces[tile], kOpaque - k);
}

// What piece k left.
template <int C>
__device__ __forceinline__ Pixel<C> load_piece(const BlendPass& p, const TileList& list, uint32_t k, const ThreadPixel& at) {
  Pixel<C> pixel = {};
  if (k + 1 < n_buckets_of(list)) {
    const float* from = checkpoint_of(p, list, k + 1);
    pixel.transmittance = from[0];
#pragma unroll
    for (int c = 0; c < C; ++c) pixel.sum[c] = from[(1 + c) * kTilePixels];
  } else if (at.inside) {
    pixel.transmittance = p.args.alphas[at.number];
#pragma unroll
    for (int c = 0; c < C; ++c) pixel.sum[c] = p.args.render[at.number * C + c];
  }
  return pixel;
}

}  // namespace gaf::cuda
