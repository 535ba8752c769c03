// Every tile's pairs nearest first: a block a tile. Small blocks, of which many fit on a multiprocessor, sort the short lists, and leave long ones
// to large blocks where these are few, for then the frame waits for the longest. Many long lists keep small blocks busy as well.
#include "device/block_sort.h"
#include "ops/device.h"
#include "rasterization.h"

namespace gaf::cuda {
namespace {

constexpr int kShortThreads = kThreads, kLongThreads = 1024;
static_assert(kShortList == kBinMost<kShortThreads>);

// Tile by tile this names the tile of every number from 1 to that of the last pair: those of the tile's second bucket and later ones, and perhaps
// one more, which has no pairs.
__device__ __forceinline__ void write_buckets(const Pairs& pairs, int64_t tile, int64_t begin, int64_t end) {
#pragma unroll 1
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
  const volatile uint32_t* const range = &pairs.tile_range[tile].x;  // volatile: before it is known whether it counts, so that loads wait together
  const uint32_t begin = range[0], end = range[1];
  if (!too_many(pairs)) return {0, begin, int(end - begin), false};
  const int64_t camera = tile / grid.n_tiles;
  return {camera, camera * a.n_gaussians, tile % grid.n_tiles == 0 ? int(a.n_gaussians) : 0, true};
}

constexpr uint32_t kNoDepth = ~uint32_t(0);  // of a splat that is not visible: behind every other

__device__ __forceinline__ uint64_t splat_key(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const SortedList& list, int i) {
  const int64_t at = list.first + i;
  return pair_key(a.radii[2 * at] > 0 ? __float_as_uint(a.depths[at]) : kNoDepth, uint32_t(list.camera * grid.rows_per_camera + i));
}

// Writes the keys of a camera's splats. Returns how many of this thread's are visible.
__device__ __forceinline__ int write_splat_keys(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const SortedList& list, uint64_t* keys) {
  int n_visible = 0;
  for (int i = int(threadIdx.x); i < list.n; i += kLongThreads) {
    const uint64_t key = splat_key(a, grid, list, i);
    keys[list.first + i] = key;
    n_visible += uint32_t(key >> 32) != kNoDepth;
  }
  return n_visible;
}

// Where a sorted list goes: its numbers as slots, and the rows that they belong to; where slots is null, the numbers are rows.
struct SortedTo {
  uint32_t *rows, *slots;
};

// All threads of the block must call.
template <int kBlock>
__device__ __forceinline__ void sort_list(SortMemory<kBlock>& memory, const PairKeys& keys, int64_t first, int n, const SortedTo& to) {
  uint64_t* const given = keys.keys + first;
  const auto out = [&]<int N>(const int (&places)[N], const uint64_t (&sorted)[N]) {
    uint32_t rows[N];
#pragma unroll
    for (int k = 0; k < N; ++k) {  // before anything is written: one wait for all
      rows[k] = uint32_t(sorted[k]);
      if (to.slots && places[k] >= 0) rows[k] = keys.rows_by_slot[rows[k]];
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if (places[k] < 0) continue;
      to.rows[first + places[k]] = rows[k];
      if (to.slots) to.slots[first + places[k]] = uint32_t(sorted[k]);
    }
  };
  sort_keys<kBlock>(memory, n, [&](int i) { return given[i]; }, SortRoom{given, keys.more + first}, out);
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
    sort_list<kShortThreads>(memory, keys, list.first, list.n, {pairs.rows, pairs.slots});
  } else if (threadIdx.x == 0) {
    keys.long_lists[atomicAdd(pairs.n_long + 1, 1u)] = uint32_t(tile);
  }
}

// The lists that were left, in whatever order.
__global__ void __launch_bounds__(kLongThreads) sort_long_lists(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, PairKeys keys) {
  GAF_SHARED_DYNAMIC(SortMemory<kLongThreads>, memory);
  GAF_SHARED(int, n_visible);
  const uint32_t n_lists = pairs.n_long[1];
#pragma unroll 1
  for (uint32_t i = blockIdx.x; i < n_lists; i += gridDim.x) {
    const int64_t tile = keys.long_lists[i];
    const SortedList list = list_of(a, grid, pairs, tile);
    if (list.whole) {
      if (threadIdx.x == 0) n_visible = 0;
      __syncthreads();
      atomicAdd(&n_visible, write_splat_keys(a, grid, list, keys.keys));
      __syncthreads();
      const uint32_t begin = uint32_t(list.first), end = begin + uint32_t(n_visible);
      for (int64_t t = threadIdx.x; t < grid.n_tiles; t += kLongThreads) pairs.tile_range[tile + t] = {begin, end};
    }
    sort_list<kLongThreads>(*memory, keys, list.first, list.n, list.whole ? SortedTo{pairs.order, nullptr} : SortedTo{pairs.rows, pairs.slots});
  }
}

}  // namespace

void sort_tile_lists(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const Pairs& pairs, const PairKeys& keys, Stream stream) {
  const int64_t n_tiles = a.n_cameras * grid.n_tiles, most = multiprocessors(stream.device), n_large = n_tiles < most ? n_tiles : most;
  launch(kBlendFwd, sort_lists, dim3(unsigned(n_tiles)), dim3(kShortThreads), 0, stream, a, grid, pairs, keys, uint32_t(n_large));
  launch(kBlendFwd, sort_long_lists, dim3(unsigned(n_large)), dim3(kLongThreads), sizeof(SortMemory<kLongThreads>), stream, a, grid, pairs, keys);
}

}  // namespace gaf::cuda
