// The way back through the tiles, front to back again. A block has one bucket: up to 256 pairs of a tile, of which forward left what every pixel
// had seen before. So long lists are many blocks, and no list waits for its own beginning.
//
// A warp goes over the pairs that touch its 8x4 pixels twice. First a lane is a pixel: transmittance and `rest` pass from pair to pair. What
// came out, two numbers a pair and pixel, goes through shared memory, eight pairs at a time; then a lane is a quarter of a pair, one row of the
// eight pixels, and sums. This takes less than half the instructions of summing each of ten numbers over the lanes with shuffles.
#include "device/tile_splats.h"
#include "rasterization_sums.h"

namespace gaf::cuda {
namespace {

constexpr int kRound = 64;     // pairs at a time
constexpr int kEntries = 256;  // (pair, warp) sums at a time; a round of many large splats is cut to 32 pairs, which always fit
constexpr int kChunk = 8;      // pairs of a warp between the two ways of looking at them
constexpr int kStaggered = kTilePixels / kSubtiles + 2;  // 34: eight pairs' pixels in different banks, two pixels in 16 bytes
static_assert(kRound == kChunk * kChunk && kChunk == 8, "a chunk's list of pairs, 8 bytes, lies in the padding of one row of products");

template <int C, bool kAbs>
struct Sums {
  static constexpr int kFields = kAbs ? kPairFields : kMoments + C;
  static constexpr int kStride = kFields | 1;  // odd, so that threads side by side meet different banks
};

// What a pixel carries from pair to pair.
struct PixelState {
  float transmittance, rest;
};

template <int C>
struct PixelGrad {
  float v[C];
};

// The gradient that a pixel expects of all its splats and the background, and its state before the bucket.
template <int C>
__device__ __forceinline__ PixelState start_pixel(const BlendPass& p, const ThreadPixel& at, const float* checkpoint, PixelGrad<C>& g) {
  const RasterizationBlendArgs<float>& a = p.args;
  PixelState pixel = {at.inside ? 1.f : 0.f, 0.f};
#pragma unroll
  for (int c = 0; c < C; ++c) g.v[c] = 0;
  if (at.inside) {
    const int64_t first = at.number * a.n_channels + p.first_channel;
    if (p.first_channel == 0 && a.v_alphas) pixel.rest = (a.alphas[at.number] - 1) * a.v_alphas[at.number];
#pragma unroll
    for (int c = 0; c < C; ++c) {
      g.v[c] = a.v_render[first + c];
      pixel.rest = fma_(g.v[c], a.render[first + c], pixel.rest);
    }
  }
  if (!checkpoint) return pixel;
  pixel.transmittance = checkpoint[threadIdx.x];
#pragma unroll
  for (int c = 0; c < C; ++c) pixel.rest = fma_(-checkpoint[(1 + c) * kTilePixels + threadIdx.x], g.v[c], pixel.rest);
  return pixel;
}

// The bucket of this block: the first of every tile come first, then those with a checkpoint.
struct Bucket {
  int64_t tile;
  int64_t k;  // of its tile; with `whole` there is one, which has everything
};

__device__ __forceinline__ Bucket bucket_of(const BlendPass& p, int64_t block, int64_t n_tiles) {
  if (block < n_tiles) return {block, 0};
  const int64_t number = block - n_tiles;
  if (number == 0 || too_many(p.pairs) || number > p.pairs.counts[1] / kBucket) return {-1, 0};
  const int tile = p.pairs.bucket_tile[number];
  return {tile, number - bucket_number(p.pairs.tile_range[tile].x, 0)};
}

// Shared memory of a block, as the functions below take it.
struct Round {
  StagedSplat* splats;      // [65] the last is unseen; a target is the pair's slot, or the splat's row where sums are atomic
  unsigned (*touched)[kSubtiles];  // [2][8]: bit i of [h][w]: warp w has pixels of pair 32 h + i
  float2* products;         // [8 warps][8][33] weight, alpha v_alpha
  float* v_pixels;          // [C][256]
  float* sums;              // [256 entries][stride]
};

// Sums of one warp for one pair lie in an entry. A pair's follow each other, in the order of its warps.
struct Entries {
  int first, warps;  // number of the first; bit w: warp w has one

  // `low`: entries of the round's first 32 pairs.
  __device__ __forceinline__ Entries(const Round& r, int pair, int low)
      : first(int(r.splats[pair].entries >> kSubtiles) + (pair >= kWarp ? low : 0)), warps(int(r.splats[pair].entries & 0xff)) {}
  __device__ __forceinline__ int of_this_warp() const { return first + __popc(unsigned(warps) & ((1u << warp_index()) - 1)); }
  __device__ __forceinline__ int n() const { return __popc(unsigned(warps)); }
};

// Two warps bring up to 64 pairs, from `at` on, and which warps they concern.
__device__ __forceinline__ void stage_round(const BlendPass& p, const TilePlace& place, const TileList& list, uint32_t at, uint32_t end,
                                            bool atomic, const Round& r) {
  const int i = int(threadIdx.x);
  if (i >= kRound) return;
  unsigned mask = 0, warps = 0;
  if (at + i < end) {
    const uint32_t row = list.rows[at + i];
    const TileSplat s = load_tile_splat(p, place, row);
    r.splats[i] = staged(s, atomic ? row : p.pairs.slots[at + i]);
    mask = s.subtiles;
  }
#pragma unroll
  for (int w = 0; w < kSubtiles; ++w) {
    const bool is_touched = (mask >> w & 1) && at + i - list.begin < p.pairs.stops[place.tile * kSubtiles + w];
    const unsigned touched = __ballot_sync(kFullMask, is_touched);
    if (lane_index() == w) r.touched[warp_index()][w] = touched;
    warps |= unsigned(is_touched) << w;
  }
  const uint32_t n = uint32_t(__popc(warps)), before = warp_inclusive_sum(n) - n;
  r.splats[i].entries = before << kSubtiles | warps;
}

// A lane has pair `lane % 8` of a chunk and row `lane / 8` of the warp's pixels.
template <int C, bool kAbs>
__device__ __forceinline__ void sum_chunk(const Round& r, int pair, int n, int low) {
  constexpr int kFields = Sums<C, kAbs>::kFields, kStride = Sums<C, kAbs>::kStride;
  const int e = lane_index() % kChunk, row = lane_index() / kChunk;
  const StagedSplat& splat = r.splats[pair];
  const float4 shape = splat.shape;
  const float y = float(warp_index() / kSubtilesAcross * kSubtileY + row) + 0.5f;
  const float x = float(warp_index() % kSubtilesAcross * kSubtileX) + 0.5f;
  float u_first, v;
  splat_power(splat, x, y, u_first, v);
  float m[kPairFields] = {};
  const float4* products = reinterpret_cast<const float4*>(r.products + (warp_index() * kChunk + e) * kStaggered + row * kSubtileX);
  const float4* v_pixels = reinterpret_cast<const float4*>(r.v_pixels + warp_index() * kWarp + row * kSubtileX);
  if (e < n) {
#pragma unroll 1
    for (int i = 0; i < kSubtileX; i += 4) {
      const float4 two = products[i / 2], more = products[i / 2 + 1];
      const float weights[4] = {two.x, two.z, more.x, more.z}, alpha_times[4] = {two.y, two.w, more.y, more.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float u = fma_(shape.x, float(k), u_first), du = alpha_times[k] * u;
        m[0] += alpha_times[k];
        m[1] += du;
        m[3] = fma_(du, u, m[3]);
        if constexpr (kAbs) {
          m[kAbsField] += fabsf(shape.x * du);
          m[kAbsField + 1] += fabsf(fma_(shape.y, du, shape.z * alpha_times[k] * v));
        }
      }
#pragma unroll
      for (int c = 0; c < C; ++c) {
        const float4 v_pixel = v_pixels[(c * kTilePixels + i) / 4];
#pragma unroll
        for (int k = 0; k < 4; ++k) m[kMoments + c] = fma_(weights[k], component(v_pixel, k), m[kMoments + c]);
      }
      u_first = fma_(shape.x, 4.f, u_first);
    }
    m[2] = m[0] * v;  // v is the same along a row
    m[4] = m[1] * v;
    m[5] = m[2] * v;
  }
  // Four rows are joined: lanes halve the fields among them, then halve them again, so that each ends with a quarter of the sums.
  constexpr int kHalf = kPairFields / 2, kQuarter = kPairFields / 4;
  const bool odd = row & 1, high = row & 2;
  float half[kHalf], quarter[kQuarter];
#pragma unroll
  for (int f = 0; f < kHalf; ++f) {
    half[f] = (odd ? m[kHalf + f] : m[f]) + __shfl_xor_sync(kFullMask, odd ? m[f] : m[kHalf + f], kChunk);
  }
#pragma unroll
  for (int f = 0; f < kQuarter; ++f) {
    quarter[f] = (high ? half[kQuarter + f] : half[f]) + __shfl_xor_sync(kFullMask, high ? half[f] : half[kQuarter + f], 2 * kChunk);
  }
  const int first = (odd ? kHalf : 0) + (high ? kQuarter : 0);
  float* out = r.sums + Entries(r, pair, low).of_this_warp() * kStride + first;
#pragma unroll
  for (int f = 0; f < kQuarter; ++f) {
    if (e < n && first + f < kFields) out[f] = quarter[f];
  }
}

// Numbers of a warp's pairs, eight in the padding of each row of its products: the chunks of a round.
__device__ __forceinline__ uint8_t* chunk_pairs(const Round& r, int chunk) {
  return reinterpret_cast<uint8_t*>(r.products + (warp_index() * kChunk + chunk) * kStaggered + kTilePixels / kSubtiles);
}

// Lists this warp's pairs among the first n of the round, the last chunk filled up with the unseen one, and returns how many there are.
__device__ __forceinline__ int list_pairs(const Round& r, int n) {
  const unsigned low = r.touched[0][warp_index()], high = n > kWarp ? r.touched[1][warp_index()] : 0;
  const unsigned mine = 1u << lane_index(), before = mine - 1;
  const int n_low = __popc(low), k_low = __popc(low & before), k_high = n_low + __popc(high & before);
  if (low & mine) chunk_pairs(r, k_low / kChunk)[k_low % kChunk] = uint8_t(lane_index());
  if (high & mine) chunk_pairs(r, k_high / kChunk)[k_high % kChunk] = uint8_t(lane_index() + kWarp);
  const int count = n_low + __popc(high), k = count + lane_index();
  if (lane_index() < kChunk && k < (count + kChunk - 1) / kChunk * kChunk) chunk_pairs(r, k / kChunk)[k % kChunk] = kRound;
  __syncwarp();
  return count;
}

// What a pixel sees of a pair by itself, before its turn.
struct Sight {
  float power, shade;
};

template <int C>
__device__ __forceinline__ Sight look_at(const Round& r, int pair, const PixelGrad<C>& g, float x, float y) {
  float u, v;
  const StagedSplat& splat = r.splats[pair];
  Sight s = {splat_power(splat, x, y, u, v), 0.f};
#pragma unroll
  for (int c = 0; c < C; ++c) s.shade = fma_(splat.color(c), g.v[c], s.shade);
  return s;
}

__device__ __forceinline__ float2 pass_pair(const Sight& s, PixelState& pixel) {
  const BlendGrad<float> d = blend_vjp(s.power, s.shade, pixel.transmittance, pixel.rest);
  return make_float2(d.weight, d.alpha_times);
}

// Number e of a chunk's list, where e is a constant after unrolling.
__device__ __forceinline__ int pair_at(const uint2& pairs, int e) { return int((e < 4 ? pairs.x : pairs.y) >> (8 * (e % 4)) & 0xff); }

// Pairs are looked at together, so that none waits for another's loads; where they are not enough, the unseen one makes up their number.
template <int C, bool kAbs>
__device__ __forceinline__ void walk_round(const Round& r, int n, int low, const PixelGrad<C>& g, const ThreadPixel& at, PixelState& pixel) {
  const int count = list_pairs(r, n);
  float2* products = r.products + warp_index() * kChunk * kStaggered + lane_index();
  const float x = float(at.x) + 0.5f, y = float(at.y) + 0.5f;
  for (int first = 0; first < count; first += kChunk) {
    const int m = count - first < kChunk ? count - first : kChunk;
    const uint2 pairs = *reinterpret_cast<const uint2*>(chunk_pairs(r, first / kChunk));
#pragma unroll
    for (int e = 0; e < kChunk; e += kTogether) {
      if (e >= m) break;
      Sight sights[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) sights[k] = look_at(r, pair_at(pairs, e + k), g, x, y);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) products[(e + k) * kStaggered] = pass_pair(sights[k], pixel);
    }
    __syncwarp();
    const int e = lane_index() % kChunk;
    sum_chunk<C, kAbs>(r, e < m ? chunk_pairs(r, first / kChunk)[e] : 0, m, low);
    __syncwarp();
  }
}

// Four threads a pair add up what its warps found, warp by warp.
template <int C, bool kAbs>
__device__ __forceinline__ void write_round(const Round& r, int n, int low, const PairSums& out, bool atomic) {
  constexpr int kFields = Sums<C, kAbs>::kFields, kStride = Sums<C, kAbs>::kStride;
  const int i = int(threadIdx.x) / 4, first = int(threadIdx.x) % 4 * 4;
  if (i >= n || first >= kPairFields) return;
  const Entries entries(r, i, low);
  if (entries.warps == 0) return;
  float sum[4] = {};
  const float* s = r.sums + entries.first * kStride + first;
  for (int k = entries.n(); k > 0; --k, s += kStride) {
#pragma unroll
    for (int f = 0; f < 4; ++f) sum[f] += first + f < kFields ? s[f] : 0.f;
  }
  if (atomic) {
#pragma unroll
    for (int f = 0; f < 4; ++f) {
      if (first + f < kFields) atomicAdd(out.splats + int64_t(kPairFields) * r.splats[i].target + first + f, sum[f]);
    }
    return;
  }
  reinterpret_cast<float4*>(out.pairs)[int64_t(r.splats[i].target) * (kPairFields / 4) + first / 4] = make_float4(sum[0], sum[1], sum[2], sum[3]);
  if (first == 0) out.used[r.splats[i].target] = 1;
}

// Shared memory is cut so that up to RGB three blocks fit on a multiprocessor with 100 KiB; for RGB registers allow four on larger ones.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 == 10
constexpr int kMostAtOnce = 3;  // with four, registers of sm_100 spill
#else
constexpr int kMostAtOnce = 4;
#endif

constexpr int blocks_at_once(int n_channels, bool absgrad) {
  if (n_channels == 3 && !absgrad) return kMostAtOnce;
  return n_channels == 4 && absgrad ? 2 : 3;
}

template <int C, bool kAbs>
__global__ void __launch_bounds__(kTilePixels, blocks_at_once(C, kAbs)) blend_bucket_vjp(BlendPass p, PairSums out) {
  GAF_SHARED(StagedSplat, splats, [kRound + 1]);
  GAF_SHARED(unsigned, touched, [2][kSubtiles]);
  GAF_SHARED(float4, products, [kSubtiles * kChunk * kStaggered / 2]);
  GAF_SHARED(float4, v_pixels, [C * kTilePixels / 4]);
  GAF_SHARED(float, sums, [kEntries * Sums<C, kAbs>::kStride]);
  const Round r = {splats, touched, reinterpret_cast<float2*>(products), reinterpret_cast<float*>(v_pixels), sums};
  const int64_t n_tiles = p.args.n_cameras * p.grid.n_tiles;
  const Bucket bucket = bucket_of(p, blockIdx.x, n_tiles);
  if (bucket.tile < 0) return;
  const TilePlace place(p.grid, bucket.tile);
  const ThreadPixel at_pixel(p.grid, place);
  const TileList list(p.pairs, bucket.tile);
  const uint32_t* stops = p.pairs.stops + bucket.tile * kSubtiles;
  uint32_t walked = 0;
#pragma unroll
  for (int w = 0; w < kSubtiles; ++w) walked = stops[w] > walked ? stops[w] : walked;
  uint32_t at = list.begin + uint32_t(bucket.k) * kBucket;
  uint32_t end = walked < list.end - list.begin ? list.begin + walked : list.end;
  if (!list.whole && end > at + kBucket) end = at + kBucket;
  if (at >= end) return;

  const int planes = 1 + int(p.args.n_channels < kSplatChannels ? p.args.n_channels : kSplatChannels);
  const float* checkpoint = p.pairs.checkpoints + bucket_number(list.begin, bucket.k) * planes * kTilePixels;
  PixelGrad<C> g;
  PixelState pixel = start_pixel<C>(p, at_pixel, bucket.k > 0 ? checkpoint : nullptr, g);
#pragma unroll
  for (int c = 0; c < C; ++c) r.v_pixels[c * kTilePixels + threadIdx.x] = g.v[c];
  if (threadIdx.x == 0) splats[kRound] = unseen_splat();
  const bool atomic = out.atomic || list.whole;
  while (at < end) {
    stage_round(p, place, list, at, end, atomic, r);
    __syncthreads();
    int low = 0, total = 0;
#pragma unroll
    for (int w = 0; w < kSubtiles; ++w) low += __popc(touched[0][w]), total += __popc(touched[1][w]);
    total += low;
    const int n = total <= kEntries ? kRound : kWarp;
    walk_round<C, kAbs>(r, n, low, g, at_pixel, pixel);
    __syncthreads();
    write_round<C, kAbs>(r, n, low, out, atomic);
    __syncthreads();
    at += uint32_t(n);
  }
}

}  // namespace

void blend_vjp_pass(const BlendPass& pass, const PairSums& sums, Stream stream) {
  const int64_t blocks = pass.args.n_cameras * pass.grid.n_tiles + pass.pairs.capacity / kBucket + 1;
  with_channels(pass.n_channels, [&](auto n) {
    constexpr int C = decltype(n)::value;
    const auto kernel = pass.args.absgrad ? blend_bucket_vjp<C, true> : blend_bucket_vjp<C, false>;
    launch(kBlendBwd, kernel, dim3(unsigned(blocks)), dim3(kTilePixels), 0, stream, pass, sums);
  });
}

}  // namespace gaf::cuda
