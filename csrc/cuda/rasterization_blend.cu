// Tiles, front to back: a block is a tile, a thread a pixel. Splats are staged in shared memory 256 at a time; each warp then walks those that
// touch its own 8x4 pixels.
#include <stdexcept>
#include <string>

#include "device/tile_splats.h"
#include "math/blend.h"
#include "rasterization.h"

namespace gaf::cuda {
namespace {

constexpr int kTogether = 2;  // splats that a pixel looks at before they take their turns; four were slower

// What this thread's pixel has seen so far.
template <int C>
struct Pixel {
  float transmittance, sum[C];
};

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

// The tile of a block: a camera's rows of tiles from the middle outwards. What is drawn mostly fills the middle, and where the longest lists come
// last, the multiprocessors wait for a few of them.
__device__ __forceinline__ int64_t middle_first(const TileGrid& grid, int64_t block) {
  const int t = int(block % grid.n_tiles), k = t / grid.tiles_x;
  const int y = grid.tiles_y / 2 + (k % 2 == 0 ? k / 2 : -(k + 1) / 2);
  return block - t + int64_t(y) * grid.tiles_x + t % grid.tiles_x;
}

template <int C>
__global__ void __launch_bounds__(kTilePixels) blend_tiles(BlendPass p, bool only_checkpoints) {
  GAF_SHARED(float4, splats, [3 * kBucket]);  // shape; origin and two colours; two colours
  GAF_SHARED(unsigned, masks, [kBucket]);
  const TilePlace place(p.grid, middle_first(p.grid, blockIdx.x));
  const ThreadPixel at_pixel(p.grid, place);
  const TileList list(p.pairs, place.tile);
  const float x = float(at_pixel.x) + 0.5f, y = float(at_pixel.y) + 0.5f;
  const bool keep = p.pairs.slots && !list.whole, checkpoints = keep && p.pairs.checkpoints;
  Pixel<C> pixel = {};
  pixel.transmittance = at_pixel.inside ? 1.f : 0.f;  // pixels outside the image never keep a warp going
  bool alive = __any_sync(kFullMask, at_pixel.inside);
  uint32_t walked = alive ? list.end - list.begin : 0, at = list.begin;
  for (; at < list.end; at += kBucket) {
    if (!__syncthreads_or(alive)) break;
    if (checkpoints && at > list.begin) write_checkpoint(p, list, at, pixel);
    const int n = int(list.end - at < kBucket ? list.end - at : kBucket);
    unsigned mask = 0;
    if (int(threadIdx.x) < n) {
      const TileSplat s = load_tile_splat(p, place, list.rows[at + threadIdx.x]);
      splats[3 * threadIdx.x] = s.shape;
      splats[3 * threadIdx.x + 1] = make_float4(s.origin.x, s.origin.y, s.color.x, s.color.y);
      splats[3 * threadIdx.x + 2] = make_float4(s.color.z, s.color.w, 0, 0);
      mask = s.subtiles;
    }
    masks[threadIdx.x] = mask;
    __syncthreads();
    for (int first = 0; alive && first < n; first += kWarp) {
      unsigned todo = __ballot_sync(kFullMask, masks[first + lane_index()] >> warp_index() & 1);
      while (todo) walk_together(splats + 3 * first, todo, x, y, pixel);
      alive = __any_sync(kFullMask, pixel.transmittance >= float(kTransmittanceMin));
      if (!alive) walked = at - list.begin + uint32_t(first) + kWarp;
    }
  }
  if (p.pairs.slots && lane_index() == 0) p.pairs.stops[place.tile * kSubtiles + warp_index()] = walked;
  if (only_checkpoints) return;
  if (at_pixel.inside) write_pixel(p, place.camera, at_pixel.number, pixel);
  if (threadIdx.x == 0 && p.first_channel == 0 && !list.whole) {
    const uint32_t end = at < list.end ? at : list.end;
    atomicAdd(reinterpret_cast<unsigned long long*>(p.args.statistics + 2), (unsigned long long)(end - list.begin));
  }
}

}  // namespace

void blend_pass(const BlendPass& pass, bool only_checkpoints, Stream stream) {
  const int64_t n_tiles = pass.args.n_cameras * pass.grid.n_tiles;
  with_channels(pass.n_channels, [&](auto n) {
    launch(kBlendFwd, blend_tiles<decltype(n)::value>, dim3(unsigned(n_tiles)), dim3(kTilePixels), 0, stream, pass, only_checkpoints);
  });
}

int64_t rasterization_blend_kept_bytes(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room) {
  return pairs_bytes(a, room.capacity, true);
}

void rasterization_blend_fwd(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room, Stream stream) {
  constexpr int64_t kMany = INT32_MAX;
  BlendPass pass{a, tile_grid(a.width, a.height, a.n_gaussians), {}, 0, 0};
  const int64_t n_tiles = a.n_cameras * pass.grid.n_tiles, n_rows = a.n_cameras * pass.grid.rows_per_camera;
  if (n_tiles >= kMany || n_rows >= kMany || room.capacity >= kMany || room.capacity < 1) {
    throw std::invalid_argument(
        "rasterization: cameras x Gaussians and cameras x tiles must each be below 2^31 on a GPU, and the room for pairs from 1 to 2^31; got " +
        std::to_string(n_rows) + ", " + std::to_string(n_tiles) + " and " + std::to_string(room.capacity) + "; render fewer cameras at a time");
  }
  const bool keep = a.kept != nullptr;
  uint8_t* memory = keep ? a.kept : stream.scratch<uint8_t>(pairs_bytes(a, room.capacity, false));
  pass.pairs = pairs_in(memory, a, room.capacity, keep);
  find_pairs(a, pass.grid, pass.pairs, stream);
  // Checkpoints of more channels than a pass has would overwrite each other: backward makes them again, pass by pass.
  if (a.n_channels > kSplatChannels) pass.pairs.checkpoints = nullptr;
  for_each_pass(pass, [&] { blend_pass(pass, false, stream); });
}

}  // namespace gaf::cuda
