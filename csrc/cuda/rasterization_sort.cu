// Every tile's pairs nearest first: a block a tile. Small blocks, of which many fit on a multiprocessor, sort the short lists, and leave long ones
// to large blocks where these are few, for then the frame waits for the longest. Many long lists keep small blocks busy as well.
#include "device/block_sort.h"
#include "ops/device.h"
#include "rasterization.h"

namespace gaf::cuda {
namespace {

constexpr int kShortThreads = kThreads, kLongThreads = 1024;
static_assert(kShortList == kSortMost<kShortThreads>);

// Tile by tile this names the tile of every number from 1 to that of the last pair: those of the tile's second bucket and later ones, and perhaps
// one more, which has no pairs.
__device__ __forceinline__ void write_buckets(const Pairs& pairs, int64_t tile, int64_t begin, int64_t end) {
  for (int64_t i = begin / kBucket + 1 + threadIdx.x; i <= end / kBucket; i += kShortThreads) pairs.bucket_tile[i] = int32_t(tile);
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

// Sorts a list, and writes it as rows and slots, or as its camera's order. All threads of the block must call. Returns how many of the keys that
// this thread wrote are visible splats.
template <int kBlock>
__device__ __forceinline__ int sort_list(SortMemory<kBlock>& memory, const RasterizationBlendArgs<float>& a, const TileGrid& grid,
                                         const Pairs& pairs, const PairKeys& keys, const SortedList& list) {
  int n_visible = 0;
  const auto load = [&](int i) { return list.whole ? splat_key(a, grid, list, i) : keys.keys[list.first + i]; };
  sort_keys<kBlock>(memory, list.n, load, SortRoom{keys.keys + list.first, keys.more + list.first}, [&](int i, uint64_t key) {
    const int64_t place = list.first + i;
    const uint32_t number = uint32_t(key);
    if (list.whole) {
      pairs.order[place] = number;
      n_visible += key != kLastKey;
    } else {
      pairs.rows[place] = pairs.slots ? keys.rows_by_slot[number] : number;
      if (pairs.slots) pairs.slots[place] = number;
    }
  });
  return n_visible;
}

// n_large: of the large blocks that run at once.
__global__ void __launch_bounds__(kShortThreads, 5) sort_lists(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, PairKeys keys,
                                                               uint32_t n_large) {
  GAF_SHARED(SortMemory<kShortThreads>, memory);
  const int64_t tile = blockIdx.x;
  const SortedList list = list_of(a, grid, pairs, tile);
  const bool is_left = list.whole || (list.n > kShortList && pairs.n_long[0] <= n_large);
  if (pairs.slots && !list.whole) write_buckets(pairs, tile, list.first, list.first + list.n);
  if (list.n == 0) return;
  if (!is_left) {
    sort_list<kShortThreads>(memory, a, grid, pairs, keys, list);
  } else if (threadIdx.x == 0) {
    keys.long_lists[atomicAdd(pairs.n_long + 1, 1u)] = uint32_t(tile);
  }
}

// The lists that were left, in whatever order.
__global__ void __launch_bounds__(kLongThreads) sort_long_lists(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, PairKeys keys) {
  GAF_SHARED(SortMemory<kLongThreads>, memory);
  GAF_SHARED(int, n_visible);
  const uint32_t n_lists = pairs.n_long[1];
#pragma unroll 1
  for (uint32_t i = blockIdx.x; i < n_lists; i += gridDim.x) {
    const int64_t tile = keys.long_lists[i];
    const SortedList list = list_of(a, grid, pairs, tile);
    if (threadIdx.x == 0) n_visible = 0;
    const int n_mine = sort_list<kLongThreads>(memory, a, grid, pairs, keys, list);  // barriers lie in it
    if (!list.whole) continue;
    atomicAdd(&n_visible, n_mine);
    __syncthreads();
    const uint32_t begin = uint32_t(list.first), end = begin + uint32_t(n_visible);
    for (int64_t t = threadIdx.x; t < grid.n_tiles; t += kLongThreads) pairs.tile_range[tile + t] = {begin, end};
    __syncthreads();
  }
}

}  // namespace

void sort_tile_lists(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const Pairs& pairs, const PairKeys& keys, Stream stream) {
  const int64_t n_tiles = a.n_cameras * grid.n_tiles, most = multiprocessors(stream.device), n_large = n_tiles < most ? n_tiles : most;
  launch(kBlendFwd, sort_lists, dim3(unsigned(n_tiles)), dim3(kShortThreads), 0, stream, a, grid, pairs, keys, uint32_t(n_large));
  launch(kBlendFwd, sort_long_lists, dim3(unsigned(n_large)), dim3(kLongThreads), 0, stream, a, grid, pairs, keys);
}

}  // namespace gaf::cuda
