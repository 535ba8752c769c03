#include <algorithm>
#include <cstring>
#include <vector>

#include "isa.h"
#include "parallel.h"
#include "rasterization_pairs.h"

namespace gaf::cpu {
namespace {

constexpr int64_t kGroupsAtOnce = 64;  // of sixteen splats, when pairs are summed

template <class T>
TileBlend<T> tile_blend(const RasterizationBlendArgs<T>& a, const TileGrid& grid, const Kept& kept) {
  TileBlend<T> b{};
  b.args = &a;
  b.grid = grid;
  b.pairs = kept.pairs();
  b.tile_begin = kept.tile_begin();
  b.tile_walked = kept.tile_walked();
  b.first_slot = kept.first_slot();
  b.wide_slots = kept.header().n_pairs > int64_t(UINT32_MAX);
  return b;
}

// More channels than a splat carries are blended in passes of four; every pass sees the same alphas.
template <class T, class F>
void for_each_pass(TileBlend<T>& b, F&& f) {
  const int n = int(b.args->n_channels);
  for (b.first_channel = 0; b.first_channel < n; b.first_channel += kSplatChannels) {
    b.n_channels = std::min(kSplatChannels, n - b.first_channel);
    f();
  }
}

}  // namespace

template <class T>
Scratch rasterization_blend_fwd(const RasterizationBlendArgs<T>& a, int threads) {
  const TileGrid grid = tile_grid(a.width, a.height, a.n_gaussians);
  Scratch memory = find_pairs(a, grid, threads);
  TileBlend<T> b = tile_blend(a, grid, Kept(memory.as()));
  const int64_t n_tiles = a.n_cameras * grid.n_tiles;
  for_each_pass(b, [&] {
    parallel_for(n_tiles, 1, threads, [&](int64_t tile, int64_t, int) { GAF_DISPATCH_NUMBER(T, blend_tile<T>)(b, tile); });
  });
  int64_t walked = 0;
  for (int64_t t = 0; t < n_tiles; ++t) walked += b.tile_walked[t];
  a.statistics[2] = walked;
  return memory;
}

template <class T>
void rasterization_blend_bwd(const RasterizationBlendArgs<T>& a, int threads) {
  const TileGrid grid = tile_grid(a.width, a.height, a.n_gaussians);
  const Kept kept(a.kept);
  TileBlend<T> b = tile_blend(a, grid, kept);
  const int64_t n_tiles = kept.header().n_tiles, n_pairs = kept.header().n_pairs;
  const Scratch slots = scratch_of<PairGrad<T>>(n_pairs), used = scratch_of<uint8_t>(n_pairs), v_background = scratch_of<T>(4 * n_tiles);
  b.slots = slots.template as<PairGrad<T>>();
  b.slot_used = used.template as<uint8_t>();
  b.tile_v_background = v_background.template as<T>();
  for_each_pass(b, [&] {
    std::memset(b.slot_used, 0, n_pairs);
    parallel_for(n_tiles, 1, threads, [&](int64_t tile, int64_t, int) { GAF_DISPATCH_NUMBER(T, blend_tile_vjp<T>)(b, tile); });
    parallel_for(kept.header().n_rows / kSplatGroup, kGroupsAtOnce, threads,
                 [&](int64_t begin, int64_t end, int) { GAF_DISPATCH_NUMBER(T, sum_pairs<T>)(b, begin, end); });
    if (!a.v_backgrounds) return;
    for (int64_t c = 0; c < a.n_cameras; ++c) {
      for (int k = 0; k < b.n_channels; ++k) {
        double sum = 0;
        for (int64_t t = c * grid.n_tiles; t < (c + 1) * grid.n_tiles; ++t) sum += b.tile_v_background[kSplatChannels * t + k];
        a.v_backgrounds[c * a.n_channels + b.first_channel + k] = T(sum);
      }
    }
  });
}

template Scratch rasterization_blend_fwd(const RasterizationBlendArgs<float>&, int);
template Scratch rasterization_blend_fwd(const RasterizationBlendArgs<double>&, int);
template void rasterization_blend_bwd(const RasterizationBlendArgs<float>&, int);
template void rasterization_blend_bwd(const RasterizationBlendArgs<double>&, int);

}  // namespace gaf::cpu
