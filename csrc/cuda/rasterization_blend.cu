// Tiles, front to back: a block is a tile, a thread a pixel. Splats are staged in shared memory 256 at a time; each warp then walks those that
// touch its own 8x4 pixels. Of a long list it leaves what lies behind the second stage to rasterization_pieces.cu, where something is still seen.
#include <stdexcept>
#include <string>

#include "rasterization_pixel.h"

namespace gaf::cuda {
namespace {

// The tile of a block: a camera's rows of tiles from the middle outwards. What is drawn mostly fills the middle, and where the longest lists come
// last, the multiprocessors wait for a few of them.
__device__ __forceinline__ int64_t middle_first(const TileGrid& grid, int64_t block) {
  const int t = int(block % grid.n_tiles), k = t / grid.tiles_x;
  const int y = grid.tiles_y / 2 + (k % 2 == 0 ? k / 2 : -(k + 1) / 2);
  return block - t + int64_t(y) * grid.tiles_x + t % grid.tiles_x;
}

// Hands what lies behind `pixel` on. The block must be done with `first`, which is in shared memory. Tile and list are found again: kept for this,
// they make blend_tiles<2> spill on sm_100 and sm_120.
template <int C>
__device__ __forceinline__ void leave_rest(const BlendPass& p, const Pixel<C>& pixel, uint32_t& first) {
  const int64_t tile = middle_first(p.grid, blockIdx.x);
  const TileList list(p.pairs, tile);
  const uint32_t n = 1 + n_buckets(list) - kFirstBuckets;
  if (threadIdx.x == 0) first = atomicAdd(p.pairs.n_pieces, n);
  __syncthreads();
  write_state(state_of<C>(p, first), pixel);
  for (uint32_t i = threadIdx.x; i < n; i += kTilePixels) {
    Piece& piece = p.pieces.list[first + i];
    piece.tile = uint32_t(tile);
    piece.bucket = kFirstBuckets - 1 + i;
    piece.n_left = n - 1;
  }
}

// Four blocks on a multiprocessor; with one channel the compiler keeps more at hand, and would spill.
template <int C>
__global__ void __launch_bounds__(kTilePixels, C == 1 ? 3 : 4) blend_tiles(BlendPass p, bool only_checkpoints) {
  GAF_SHARED(Stage, stage);
  const TilePlace place(p.grid, middle_first(p.grid, blockIdx.x));
  const ThreadPixel at_pixel(p.grid, place);
  const TileList list(p.pairs, place.tile);
  const uint32_t end = first_end(list);
  const float x = float(at_pixel.x) + 0.5f, y = float(at_pixel.y) + 0.5f;
  const bool keep = p.pairs.slots && !list.whole, checkpoints = keep && p.pairs.checkpoints;
  start_stage(stage);
  Pixel<C> pixel = {};
  pixel.transmittance = at_pixel.inside ? 1.f : 0.f;  // pixels outside the image never keep a warp going
  bool alive = __any_sync(kFullMask, at_pixel.inside);
  uint32_t walked = alive ? list.end - list.begin : 0, at = list.begin;
  for (; at < end; at += kBucket) {
    if (!__syncthreads_or(alive)) break;
    if (checkpoints && at > list.begin) write_checkpoint(p, list, at, pixel);
    const int n = int(end - at < kBucket ? end - at : kBucket);
    stage_splat(p, place, list, at, n, stage);
    __syncthreads();
    if (!alive) continue;
    const int dark = walk_stage(stage, n, x, y, pixel, [](float transmittance) { return transmittance >= float(kTransmittanceMin); });
    alive = dark == 0;
    if (!alive) walked = at - list.begin + uint32_t(dark);
  }
  if (p.pairs.slots && lane_index() == 0) p.pairs.stops[place.tile * kSubtiles + warp_index()] = walked;
  if (end < list.end && __syncthreads_or(alive)) return leave_rest(p, pixel, stage.masks[0]);
  if (only_checkpoints) return;
  if (at_pixel.inside) write_pixel(p, place.camera, at_pixel.number, pixel);
  if (threadIdx.x == 0 && p.first_channel == 0 && !list.whole) count_blended(p, (at < list.end ? at : list.end) - list.begin);
}

}  // namespace

void blend_pass(const BlendPass& pass, bool only_checkpoints, Stream stream) {
  const int64_t n_tiles = pass.args.n_cameras * pass.grid.n_tiles;
  const bool first = pass.first_channel == 0 && !only_checkpoints;  // then `find_pairs` left a zero
  if (!first) fill_bytes(kBlendFwd, pass.pairs.n_pieces, 0, sizeof(uint32_t), stream);
  with_channels(pass.n_channels, [&](auto n) {
    launch(kBlendFwd, blend_tiles<decltype(n)::value>, dim3(unsigned(n_tiles)), dim3(kTilePixels), 0, stream, pass, only_checkpoints);
  });
  if (n_tiles > 0) blend_rest(pass, only_checkpoints, stream);
}

int64_t rasterization_blend_kept_bytes(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room) {
  return pairs_bytes(a, room.capacity, true);
}

void rasterization_blend_fwd(const RasterizationBlendArgs<float>& a, const RasterizationPairRoom& room, Stream stream) {
  constexpr int64_t kMany = INT32_MAX;
  BlendPass pass{a, tile_grid(a.width, a.height, a.n_gaussians), {}, {}, 0, 0};
  const int64_t n_tiles = a.n_cameras * pass.grid.n_tiles, n_rows = a.n_cameras * pass.grid.rows_per_camera;
  if (n_tiles >= kMany || n_rows >= kMany || room.capacity >= kMany || room.capacity < 1) {
    throw std::invalid_argument(
        "rasterization: cameras x Gaussians and cameras x tiles must each be below 2^31 on a GPU, and the room for pairs from 1 to 2^31; got " +
        std::to_string(n_rows) + ", " + std::to_string(n_tiles) + " and " + std::to_string(room.capacity) + "; render fewer cameras at a time");
  }
  const bool keep = a.kept != nullptr;
  uint8_t* memory = keep ? a.kept : stream.scratch<uint8_t>(pairs_bytes(a, room.capacity, false));
  pass.pairs = pairs_in(memory, a, room.capacity, keep);
  pass.pieces = pieces_in(find_pairs(a, pass.grid, pass.pairs, stream), a, room.capacity);
  // Checkpoints of more channels than a pass has would overwrite each other: backward makes them again, pass by pass.
  if (a.n_channels > kSplatChannels) pass.pairs.checkpoints = nullptr;
  for_each_pass(pass, [&] { blend_pass(pass, false, stream); });
}

}  // namespace gaf::cuda
