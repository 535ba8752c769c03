// Tiles, front to back: a block is a tile, a thread a pixel. Splats are staged in shared memory 256 at a time; each warp then walks those that
// touch its own 8x4 pixels.
#include <stdexcept>
#include <string>

#include "device/tile_splats.h"
#include "math/blend.h"
#include "rasterization.h"

namespace gaf::cuda {
namespace {

constexpr int kChunks = kBucket / kWarp;  // after each a warp looks whether it still sees
constexpr int kListed = kBucket / kTogether + kChunks;  // groups of a warp at most

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

// Lists, chunk by chunk, where this warp's splats among the staged ones lie: numbers of bytes. Each chunk's are filled up with the splat that
// nobody sees, so that the walk takes them kTogether at a time without a question. Lane k gets where chunk k's end. All 32 lanes must call.
__device__ __forceinline__ int list_splats(const unsigned* masks, uint16_t* list) {
  static_assert(kTogether == 4 && (kBucket + 1) * sizeof(StagedSplat) <= 0xffff);
  int n = 0, my_end = 0;
#pragma unroll
  for (int k = 0; k < kChunks; ++k) {
    const bool mine = masks[k * kWarp + lane_index()] >> warp_index() & 1;
    const unsigned all = __ballot_sync(kFullMask, mine);
    const int count = __popc(all), padded = (count + kTogether - 1) / kTogether * kTogether;
    if (mine) list[n + __popc(all & ((1u << lane_index()) - 1))] = uint16_t((k * kWarp + lane_index()) * int(sizeof(StagedSplat)));
    if (lane_index() < padded - count) list[n + count + lane_index()] = uint16_t(kBucket * sizeof(StagedSplat));
    n += padded;
    if (lane_index() == k) my_end = n / kTogether;
  }
  __syncwarp();
  return my_end;
}

// Passes a pixel on through kTogether splats. Alphas do not depend on what lies before, so that they are found together.
template <int C>
__device__ __forceinline__ void walk_together(const StagedSplat* splats, uint2 four, float x, float y, Pixel<C>& pixel) {
  const StagedSplat* splat[kTogether];
  float alpha[kTogether];
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    splat[k] = reinterpret_cast<const StagedSplat*>(reinterpret_cast<const char*>(splats) + (k < 2 ? four.x : four.y) / (k % 2 ? 0x10000 : 1) % 0x10000);
    float u, v;
    alpha[k] = blend_weight(splat_power(*splat[k], x, y, u, v), 1.f);
  }
#pragma unroll
  for (int k = 0; k < kTogether; ++k) {
    const float weight = alpha[k] * pixel.transmittance;
    pixel.transmittance -= weight;
#pragma unroll
    for (int c = 0; c < C; ++c) {
      pixel.sum[c] = fma_(weight, splat[k]->color(c), pixel.sum[c]);
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
  GAF_SHARED(StagedSplat, splats, [kBucket + 1]);
  GAF_SHARED(unsigned, masks, [kBucket]);
  GAF_SHARED(uint2, lists, [kSubtiles][kListed]);
  const TilePlace place(p.grid, middle_first(p.grid, blockIdx.x));
  const ThreadPixel at_pixel(p.grid, place);
  const TileList list_(p.pairs, place.tile);
  const float x = float(at_pixel.x) + 0.5f, y = float(at_pixel.y) + 0.5f;
  const bool keep = p.pairs.slots && !list_.whole, checkpoints = keep && p.pairs.checkpoints;
  if (threadIdx.x == 0) splats[kBucket] = unseen_splat();
  Pixel<C> pixel = {};
  pixel.transmittance = at_pixel.inside ? 1.f : 0.f;  // pixels outside the image never keep a warp going
  bool alive = __any_sync(kFullMask, at_pixel.inside);
  uint32_t walked = alive ? list_.end - list_.begin : 0, at = list_.begin;
  for (; at < list_.end; at += kBucket) {
    if (!__syncthreads_or(alive)) break;
    if (checkpoints && at > list_.begin) write_checkpoint(p, list_, at, pixel);
    const int n = int(list_.end - at < kBucket ? list_.end - at : kBucket);
    unsigned mask = 0;
    if (int(threadIdx.x) < n) {
      const TileSplat s = load_tile_splat(p, place, list_.rows[at + threadIdx.x]);
      splats[threadIdx.x] = staged(s);
      mask = s.subtiles;
    }
    masks[threadIdx.x] = mask;
    __syncthreads();
    if (!alive) continue;
    const uint2* list = lists[warp_index()];
    const int my_end = list_splats(masks, reinterpret_cast<uint16_t*>(lists[warp_index()]));
    int i = 0;
#pragma unroll 1
    for (int k = 0; alive && k * kWarp < n; ++k) {
      const int end = __shfl_sync(kFullMask, my_end, k);
#pragma unroll 1
      for (; i < end; ++i) walk_together(splats, list[i], x, y, pixel);
      alive = __any_sync(kFullMask, pixel.transmittance >= float(kTransmittanceMin));
      if (!alive) walked = at - list_.begin + uint32_t(k * kWarp) + kWarp;
    }
  }
  if (p.pairs.slots && lane_index() == 0) p.pairs.stops[place.tile * kSubtiles + warp_index()] = walked;
  if (only_checkpoints) return;
  if (at_pixel.inside) write_pixel(p, place.camera, at_pixel.number, pixel);
  if (threadIdx.x == 0 && p.first_channel == 0 && !list_.whole) {
    const uint32_t end = at < list_.end ? at : list_.end;
    atomicAdd(reinterpret_cast<unsigned long long*>(p.args.statistics + 2), (unsigned long long)(end - list_.begin));
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
