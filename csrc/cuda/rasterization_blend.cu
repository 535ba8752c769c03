// Tiles, front to back: a block is a tile, or a piece of one whose list is long; a thread is a pixel. Splats are staged in shared memory 256 at a
// time; each warp then walks those that touch its own 8x4 pixels.
#include <stdexcept>
#include <string>

#include "device/tile_splats.h"
#include "math/blend.h"
#include "ops/device.h"
#include "rasterization_pixel.h"

namespace gaf::cuda {
namespace {

constexpr int kTogether = 2;     // splats that a pixel looks at before they take their turns; four were slower
constexpr int kJoinAtOnce = 4;   // pieces that are waited for together

// Splats in shared memory, 256 at a time.
struct Staged {
  float4* splats;   // [256, 3] shape; origin and two colours; two colours
  unsigned* masks;  // [256] which warps they concern
};

__device__ __forceinline__ void stage(const BlendPass& p, const TilePlace& place, const TileList& list, uint32_t at, int n, const Staged& staged) {
  unsigned mask = 0;
  if (int(threadIdx.x) < n) {
    const TileSplat s = load_tile_splat(p, place, list.rows[at + threadIdx.x]);
    staged.splats[3 * threadIdx.x] = s.shape;
    staged.splats[3 * threadIdx.x + 1] = make_float4(s.origin.x, s.origin.y, s.color.x, s.color.y);
    staged.splats[3 * threadIdx.x + 2] = make_float4(s.color.z, s.color.w, 0, 0);
    mask = s.subtiles;
  }
  staged.masks[threadIdx.x] = mask;
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

// What a block has to do: its tile first, or that one's first piece, then pieces of long lists that nobody has taken yet. This lies in shared
// memory, so that what is needed once in a while takes no registers from the loop over pairs.
struct Work {
  uint32_t tile, bucket, n_pieces;  // of the frame, beside every list's first
  bool cut, checkpoints;
};

// The block's next piece. Returns whether there is one. All threads must call.
__device__ __forceinline__ bool take_piece(const Pairs& pairs, Work& work) {
  if (work.n_pieces == 0) return false;
  bool is_one = false;
  __syncthreads();
  if (threadIdx.x == 0) {
    const uint32_t i = atomicAdd(pairs.n_taken, 1u);
    is_one = i < work.n_pieces;
    if (is_one) {
      const uint2 piece = pairs.pieces[i];
      work.tile = piece.x, work.bucket = piece.y;
    }
  }
  return __syncthreads_or(is_one);
}

template <int C>
__device__ __forceinline__ void blend_work(const BlendPass& p, Work& work, const Staged& staged, bool only_checkpoints) {
  const TilePlace place(p.grid, work.tile);
  const ThreadPixel at_pixel(p.grid, place);
  TileList list(p.pairs, place.tile);
  const uint32_t n_pieces = n_pieces_of(p);  // on its way while the list is
  const float x = float(at_pixel.x) + 0.5f, y = float(at_pixel.y) + 0.5f;
  const bool cut = is_cut(p, list);
  if (threadIdx.x == 0) {
    work.cut = cut, work.n_pieces = n_pieces;
    work.checkpoints = p.pairs.slots && p.pairs.checkpoints && !list.whole && !cut;
  }
  __syncthreads();
  if (cut) {
    if (is_hidden(p, work.tile, work.bucket)) return;
    list = piece_of(list, work.bucket);
  }
  Pixel<C> pixel = {};
  pixel.transmittance = at_pixel.inside ? 1.f : 0.f;  // pixels outside the image never keep a warp going
  bool alive = __any_sync(kFullMask, at_pixel.inside);
  uint32_t at = list.begin;
  if (!cut) write_stop(p, work.tile, alive ? list.end - list.begin : 0);
  for (; at < list.end; at += kBucket) {
    if (!__syncthreads_or(alive)) break;
    if (work.checkpoints && at > list.begin) write_checkpoint(p, list, (at - list.begin) / kBucket, pixel);
    const int n = int(list.end - at < kBucket ? list.end - at : kBucket);
    stage(p, place, list, at, n, staged);
    __syncthreads();
    for (int first = 0; alive && first < n; first += kWarp) {
      unsigned todo = __ballot_sync(kFullMask, staged.masks[first + lane_index()] >> warp_index() & 1);
      while (todo) walk_together(staged.splats + 3 * first, todo, x, y, pixel);
      alive = warp_sees(pixel) || work.cut;
      if (!alive) write_stop(p, work.tile, at - list.begin + uint32_t(first) + kWarp);
    }
  }
  if (work.cut) return leave_piece(p, work.tile, list.begin, pixel);
  if (only_checkpoints) return;
  write_pixel(p, work.tile, pixel);
  if (threadIdx.x == 0 && p.first_channel == 0 && !too_many(p.pairs)) count_blended(p, (at < list.end ? at : list.end) - list.begin);
}

template <int C>
__global__ void __launch_bounds__(kTilePixels, C < 4 ? 5 : 4) blend_tiles(BlendPass p, bool only_checkpoints) {
  GAF_SHARED(float4, splats, [3 * kBucket]);
  GAF_SHARED(unsigned, masks, [kBucket]);
  GAF_SHARED(Work, work);
  if (threadIdx.x == 0) work = {uint32_t(middle_first(p.grid, blockIdx.x)), 0, 0, false, false};
  __syncthreads();
  do {
    blend_work<C>(p, work, {splats, masks}, only_checkpoints);
  } while (take_piece(p.pairs, work));
}

// What this block's pixels see of a cut list, and true checkpoints. Returns how many pairs this warp walked.
template <int C>
__device__ __forceinline__ uint32_t join_list(const BlendPass& p, const TileList& list, uint32_t n, const ThreadPixel& at, Pixel<C>& pixel) {
  uint32_t walked = 0;
  for (uint32_t first = 0; first < n && warp_sees(pixel); first += kJoinAtOnce) {
    Pixel<C> pieces[kJoinAtOnce];
#pragma unroll
    for (int i = 0; i < kJoinAtOnce; ++i) {
      if (first + i < n) pieces[i] = load_piece<C>(p, list, first + i, at);
    }
#pragma unroll
    for (int i = 0; i < kJoinAtOnce; ++i) {
      const uint32_t k = first + i;
      if (k >= n || !warp_sees(pixel)) break;
      if (k > 0 && p.pairs.slots) write_checkpoint(p, list, k, pixel);
      pass_on(pixel, pieces[i]);
      walked = (k + 1) * kBucket;
    }
  }
  return walked;
}

// A block is a tile whose list was cut: it has one second piece.
template <int C>
__global__ void __launch_bounds__(kTilePixels) join_pieces(BlendPass p) {
  GAF_SHARED(uint32_t, looked_at);
  const uint32_t n_pieces = n_pieces_of(p);
  for (uint32_t i = blockIdx.x; i < n_pieces; i += gridDim.x) {
    const uint2 piece = p.pairs.pieces[i];
    if (piece.y != 1) continue;
    const TilePlace place(p.grid, piece.x);
    const ThreadPixel at(p.grid, place);
    const TileList list(p.pairs, place.tile);
    const uint32_t n = pieces_to_join(p.pairs.opaque_pieces[piece.x], n_buckets_of(list));
    if (threadIdx.x == 0) looked_at = 0;
    __syncthreads();
    Pixel<C> pixel = {};
    pixel.transmittance = at.inside ? 1.f : 0.f;
    const uint32_t walked = join_list(p, list, n, at, pixel);
    if (lane_index() == 0) atomicMax(&looked_at, walked);
    write_stop(p, piece.x, walked);
    write_pixel(p, place.tile, pixel);
    __syncthreads();
    if (threadIdx.x == 0) count_blended(p, min(looked_at, list.end - list.begin));
    __syncthreads();
  }
}

}  // namespace

void blend_pass(const BlendPass& pass, bool only_checkpoints, Stream stream) {
  const int64_t n_tiles = pass.args.n_cameras * pass.grid.n_tiles;
  with_channels(pass.n_channels, [&](auto n) {
    constexpr int C = decltype(n)::value;
    launch(kBlendFwd, blend_tiles<C>, dim3(unsigned(n_tiles)), dim3(kTilePixels), 0, stream, pass, only_checkpoints);
    if (pass.pairs.pieces) launch(kBlendFwd, join_pieces<C>, dim3(pass.at_once), dim3(kTilePixels), 0, stream, pass);
  });
}

int64_t rasterization_blend_kept_bytes(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room) {
  return pairs_bytes(a, room.capacity, true);
}

void rasterization_blend_fwd(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room, Stream stream) {
  constexpr int64_t kMany = INT32_MAX;
  BlendPass pass{a, tile_grid(a.width, a.height, a.n_gaussians), {}, 0, 0, 0};
  const int64_t n_tiles = a.n_cameras * pass.grid.n_tiles, n_rows = a.n_cameras * pass.grid.rows_per_camera;
  if (n_tiles >= kMany || n_rows >= kMany || room.capacity >= kMany || room.capacity < 1) {
    throw std::invalid_argument(
        "rasterization: cameras x Gaussians and cameras x tiles must each be below 2^31 on a GPU, and the room for pairs from 1 to 2^31; got " +
        std::to_string(n_rows) + ", " + std::to_string(n_tiles) + " and " + std::to_string(room.capacity) + "; render fewer cameras at a time");
  }
  const bool keep = a.kept != nullptr;
  uint8_t* memory = keep ? a.kept : stream.scratch<uint8_t>(pairs_bytes(a, room.capacity, false));
  pass.pairs = pairs_in(memory, a, room.capacity, keep);
  pass.at_once = long_lists_at_once(n_tiles, stream);
  find_pairs(a, pass.grid, pass.pairs, stream);
  // Checkpoints of more channels than a pass has would overwrite each other: backward makes them again, pass by pass.
  if (a.n_channels > kSplatChannels) pass.pairs.checkpoints = nullptr;
  for_each_pass(pass, [&] { blend_pass(pass, false, stream); });
}

}  // namespace gaf::cuda
