// Every tile's pairs nearest first: a block a tile, whatever the length of its list.
#include "device/block_sort.h"
#include "rasterization.h"

namespace gaf::cuda {
namespace {

// Tile by tile this names the tile of every number from 1 to that of the last pair: those of the tile's second bucket and later ones, and perhaps
// one more, which has no pairs.
__device__ __forceinline__ void write_buckets(const Pairs& pairs, int64_t tile, int64_t begin, int64_t end) {
  for (int64_t i = begin / kBucket + 1 + threadIdx.x; i <= end / kBucket; i += kSortThreads) pairs.bucket_tile[i] = int32_t(tile);
}

// What a block has to sort: the pairs of a tile, or all splats of a camera.
struct SortedList {
  int64_t camera, first;  // place of the first
  int n;
  bool whole;
};

// Where pairs do not fit, one block of each camera makes the list that all its tiles walk.
__device__ __forceinline__ SortedList list_of(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const Pairs& pairs, int64_t tile) {
  const uint2 range = pairs.tile_range[tile];  // before it is known whether it counts: two loads at once
  if (!too_many(pairs)) return {0, range.x, int(range.y - range.x), false};
  const int64_t camera = tile / grid.n_tiles;
  return {camera, camera * a.n_gaussians, tile % grid.n_tiles == 0 ? int(a.n_gaussians) : 0, true};
}

__device__ __forceinline__ uint64_t splat_key(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const SortedList& list, int i) {
  const int64_t at = list.first + i;
  return a.radii[2 * at] > 0 ? pair_key(__float_as_uint(a.depths[at]), uint32_t(list.camera * grid.rows_per_camera + i)) : kLastKey;
}

__global__ void __launch_bounds__(kSortThreads, 6) sort_tiles(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, PairKeys keys) {
  GAF_SHARED(SortMemory, memory);
  GAF_SHARED(int, n_visible);
  const int64_t tile = blockIdx.x;
  const SortedList list = list_of(a, grid, pairs, tile);
  if (pairs.slots && !list.whole) write_buckets(pairs, tile, list.first, list.first + list.n);
  if (list.n == 0) return;
  if (threadIdx.x == 0) n_visible = 0;
  int n_mine = 0;
  const auto load = [&](int i) { return list.whole ? splat_key(a, grid, list, i) : keys.keys[list.first + i]; };
  sort_keys(memory, list.n, load, SortRoom{keys.keys + list.first, keys.more + list.first}, [&](int i, uint64_t key) {
    const int64_t place = list.first + i;
    const uint32_t number = uint32_t(key);
    if (list.whole) {
      pairs.order[place] = number;
      n_mine += key != kLastKey;
    } else {
      pairs.rows[place] = pairs.slots ? keys.rows_by_slot[number] : number;
      if (pairs.slots) pairs.slots[place] = number;
    }
  });
  if (!list.whole) return;
  atomicAdd(&n_visible, n_mine);
  __syncthreads();
  const uint32_t begin = uint32_t(list.first);
  for (int64_t t = threadIdx.x; t < grid.n_tiles; t += kSortThreads) pairs.tile_range[tile + t] = {begin, begin + uint32_t(n_visible)};
}

}  // namespace

void sort_tile_lists(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const Pairs& pairs, const PairKeys& keys, Stream stream) {
  launch(kBlendFwd, sort_tiles, dim3(unsigned(a.n_cameras * grid.n_tiles)), dim3(kSortThreads), 0, stream, a, grid, pairs, keys);
}

}  // namespace gaf::cuda
