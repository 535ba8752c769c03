// The (splat, tile) pairs of an image: visible splats sorted by depth once, their tiles found, pairs sorted by tile.
#include "device/ellipse_tiles.h"
#include "device/prim.h"
#include "device/reduce.h"
#include "rasterization.h"

namespace gaf::cuda {
namespace {

constexpr int kEmitThreads = 128;

// Positive floats order as their bits do. Both ends as maxima, for memory that begins as zeros.
__global__ void __launch_bounds__(kThreads) find_depth_range(RasterizationBlendArgs<float> a, Pairs pairs) {
  GAF_SHARED(uint32_t, ends, [2]);
  const int64_t i = thread_index();
  if (threadIdx.x < 2) ends[threadIdx.x] = 0;
  __syncthreads();
  const bool visible = i < a.n_cameras * a.n_gaussians && a.radii[2 * i] > 0;
  const uint32_t bits = visible ? __float_as_uint(a.depths[i]) : 0;
  const uint32_t nearest = warp_max(visible ? ~bits : 0u), farthest = warp_max(bits);
  if (lane_index() == 0 && farthest > 0) {
    atomicMax(&ends[0], nearest);
    atomicMax(&ends[1], farthest);
  }
  const int count = __syncthreads_count(visible);
  if (threadIdx.x != 0 || count == 0) return;
  atomicMax(pairs.depth_range, ends[0]);
  atomicMax(pairs.depth_range + 1, ends[1]);
  atomicAdd(reinterpret_cast<unsigned long long*>(pairs.counts), (unsigned long long)(count));
}

// Depths from the nearest on, in units of their last bit where the farthest is less than twice as far, and of the fewest more that bring the
// range to 24 bits: three passes sort them. Up to 32 units in the last place apart, what a key leaves undecided keeps the order given.
__global__ void __launch_bounds__(kThreads) depth_keys(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, uint32_t* keys, uint32_t* rows) {
  const int64_t i = thread_index();
  if (i >= a.n_cameras * a.n_gaussians) return;
  const uint32_t nearest = ~pairs.depth_range[0], range = pairs.depth_range[1] - nearest;
  const int bits = 32 - __clz(int(range + 1)), shift = bits > kDepthBits ? bits - kDepthBits : 0;
  const uint32_t key = (__float_as_uint(a.depths[i]) - nearest) >> shift;
  keys[i] = !(a.radii[2 * i] > 0) ? kNoDepth : key < kNoDepth ? key : kNoDepth - 1;
  rows[i] = uint32_t(i + i / a.n_gaussians * (grid.rows_per_camera - a.n_gaussians));
}

// Pairs of each 32 splats in the order of depth.
__global__ void __launch_bounds__(kEmitThreads) count_pairs(const float* splats, TileGrid grid, const uint32_t* keys, const uint32_t* order,
                                                            int64_t n, uint32_t* totals) {
  const int64_t i = thread_index();
  const bool visible = i < n && keys[i] != kNoDepth;
  const WarpTiles tiles(splats, grid, visible ? order[i] : 0, visible);
  uint32_t sum = 0;
  for (int item = 0; item < tiles.n_items; item += kWarp) sum += uint32_t(tiles.span(grid, item + lane_index()).count());
  sum = warp_sum(sum);
  if (lane_index() == 0 && i < n) totals[i / kWarp] = sum;
}

struct PairSink {
  uint32_t* tiles;         // [capacity] by slot; what is not a pair gets a number behind every tile
  uint32_t* values;        // [capacity] by slot: the slot, or the row when slots are not kept
  uint32_t* rows_by_slot;  // [capacity] or null
  uint32_t n_tiles;        // of all cameras
};

// A row of tiles may hold one pair or hundreds: the warp's pairs are numbered through and its lanes write them one after the other.
__device__ __forceinline__ void write_spans(const PairSink& sink, const TileSpan& span, uint32_t row, uint32_t before, uint32_t n,
                                            int64_t first_slot) {
  for (uint32_t base = 0; base < n; base += kWarp) {
    const uint32_t j = base + lane_index();
    const int owner = lane_of(before + uint32_t(span.count()), j);
    const uint32_t start = __shfl_sync(kFullMask, before, owner), tile = __shfl_sync(kFullMask, span.first, owner);
    const uint32_t splat = __shfl_sync(kFullMask, row, owner);
    if (j >= n) continue;
    const int64_t slot = first_slot + j;
    sink.tiles[slot] = tile + (j - start);
    sink.values[slot] = sink.rows_by_slot ? uint32_t(slot) : splat;
    if (sink.rows_by_slot) sink.rows_by_slot[slot] = splat;
  }
}

// starts [ceil(n / 32) + 1]: sums of the totals.
__global__ void __launch_bounds__(kEmitThreads) emit_pairs(const float* splats, TileGrid grid, Pairs pairs, const uint32_t* keys, int64_t n,
                                                           const int64_t* starts, PairSink sink) {
  const int64_t i = thread_index(), n_pairs = starts[(n + kWarp - 1) / kWarp];
  if (i == 0) pairs.counts[1] = n_pairs;
  const bool fits = n_pairs <= pairs.capacity, visible = fits && i < n && keys[i] != kNoDepth;
  const uint32_t row = visible ? pairs.order[i] : 0;
  const WarpTiles tiles(splats, grid, row, visible);
  int64_t slot = tiles.n_items > 0 ? starts[i / kWarp] : 0;
  for (int base = 0; base < tiles.n_items; base += kWarp) {
    const int item = base + lane_index();
    const TileSpan span = tiles.span(grid, item);
    const uint32_t count = uint32_t(span.count()), sum = warp_inclusive_sum(count);
    const uint32_t n_here = __shfl_sync(kFullMask, sum, kWarp - 1), splat = __shfl_sync(kFullMask, row, span.owner);
    if (pairs.slots && item < tiles.n_items) {
      if (span.is_first) pairs.first_slot[splat] = uint32_t(slot) + sum - count;
      if (span.is_last) pairs.end_slot[splat] = uint32_t(slot) + sum;
    }
    write_spans(sink, span, splat, sum - count, n_here, slot);
    slot += n_here;
  }
  // The sort has no other length than the capacity: what is left over goes behind the last tile.
  for (int64_t s = (fits ? n_pairs : 0) + i; s < pairs.capacity; s += int64_t(gridDim.x) * blockDim.x) {
    sink.tiles[s] = sink.n_tiles;
    sink.values[s] = 0;
  }
}

// Where each tile's places begin and end; tiles without pairs keep the zeros that are there. Also turns slots into rows.
__global__ void __launch_bounds__(kThreads) find_ranges(Pairs pairs, const uint32_t* tiles, const uint32_t* rows_by_slot) {
  const int64_t i = thread_index(), n = too_many(pairs) ? 0 : pairs.counts[1];
  if (i >= n) return;
  const uint32_t tile = tiles[i];
  if (i == 0 || tiles[i - 1] != tile) pairs.tile_range[tile].x = uint32_t(i);
  if (i + 1 == n || tiles[i + 1] != tile) pairs.tile_range[tile].y = uint32_t(i + 1);
  if (pairs.slots) pairs.rows[i] = rows_by_slot[pairs.slots[i]];
}

// Hands out arrays of one block of memory; with a null block it counts.
class Carver {
 public:
  explicit Carver(uint8_t* memory) : memory_(memory) {}
  template <class T>
  T* take(int64_t n) {
    T* p = memory_ ? reinterpret_cast<T*>(memory_ + bytes_) : nullptr;
    bytes_ += (n * int64_t(sizeof(T)) + 255) / 256 * 256;
    return p;
  }
  int64_t bytes() const { return bytes_; }

 private:
  uint8_t* memory_;
  int64_t bytes_ = 0;
};

// The arrays that must be zero come first, then those that must be -1.
struct Layout {
  Pairs pairs;
  int64_t zero_bytes, minus_bytes, bytes;
};

Layout layout(uint8_t* memory, const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep) {
  const TileGrid grid = tile_grid(a.width, a.height, a.n_gaussians);
  const int64_t n_tiles = a.n_cameras * grid.n_tiles, n_rows = a.n_cameras * grid.rows_per_camera, n_buckets = capacity / kBucket + 1;
  const int64_t channels = a.n_channels < kSplatChannels ? a.n_channels : kSplatChannels;
  Carver c(memory);
  Layout l;
  l.pairs.capacity = capacity;
  l.pairs.counts = c.take<int64_t>(3);
  l.pairs.depth_range = c.take<uint32_t>(2);
  l.pairs.tile_range = c.take<uint2>(n_tiles);
  l.pairs.first_slot = c.take<uint32_t>(keep ? n_rows : 0);
  l.pairs.end_slot = c.take<uint32_t>(keep ? n_rows : 0);
  l.zero_bytes = c.bytes();
  l.pairs.bucket_tile = c.take<int32_t>(keep ? n_buckets : 0);
  l.minus_bytes = c.bytes() - l.zero_bytes;
  l.pairs.order = c.take<uint32_t>(a.n_cameras * a.n_gaussians);
  l.pairs.stops = c.take<uint32_t>(keep ? n_tiles * kSubtiles : 0);
  l.pairs.rows = c.take<uint32_t>(capacity);
  l.pairs.slots = c.take<uint32_t>(keep ? capacity : 0);
  l.pairs.checkpoints = c.take<float>(keep ? n_buckets * (1 + channels) * kTilePixels : 0);
  if (!keep) l.pairs.slots = nullptr, l.pairs.checkpoints = nullptr;
  l.bytes = c.bytes();
  return l;
}

}  // namespace

int64_t pairs_bytes(const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep) { return layout(nullptr, a, capacity, keep).bytes; }

Pairs pairs_in(uint8_t* memory, const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep) {
  return layout(memory, a, capacity, keep).pairs;
}

void find_pairs(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const Pairs& pairs, Stream stream) {
  const char* name = "rasterization_blend_fwd";
  const bool keep = pairs.slots != nullptr;
  const Layout l = layout(reinterpret_cast<uint8_t*>(pairs.counts), a, pairs.capacity, keep);
  fill_bytes(name, pairs.counts, 0, size_t(l.zero_bytes), stream);
  fill_bytes(name, reinterpret_cast<uint8_t*>(pairs.counts) + l.zero_bytes, 0xff, size_t(l.minus_bytes), stream);
  const int64_t n = a.n_cameras * a.n_gaussians, n_tiles = a.n_cameras * grid.n_tiles, warps = (n + 31) / 32, capacity = pairs.capacity;
  if (n == 0 || n_tiles == 0) return;

  const int tile_bits = bits_for(n_tiles + 1);
  size_t sort_depths = 0, sort_tiles = 0, sum = 0;
  sort_pairs(name, nullptr, sort_depths, SortPairs{nullptr, nullptr, nullptr, nullptr, n, kDepthBits}, stream);
  sort_pairs(name, nullptr, sort_tiles, SortPairs{nullptr, nullptr, nullptr, nullptr, capacity, tile_bits}, stream);
  prefix_sum(name, nullptr, sum, nullptr, nullptr, warps, stream);
  uint8_t* memory = nullptr;
  uint32_t *keys, *rows, *sorted_keys, *totals, *tiles, *sorted_tiles, *values, *rows_by_slot;
  int64_t* starts;
  uint8_t* temp;
  for (int round = 0; round < 2; ++round) {  // the first counts bytes
    Carver c(memory);
    keys = c.take<uint32_t>(n), rows = c.take<uint32_t>(n), sorted_keys = c.take<uint32_t>(n), totals = c.take<uint32_t>(warps);
    starts = c.take<int64_t>(warps + 1);
    tiles = c.take<uint32_t>(capacity), sorted_tiles = c.take<uint32_t>(capacity), values = c.take<uint32_t>(capacity);
    rows_by_slot = c.take<uint32_t>(keep ? capacity : 0);
    const size_t most = sort_depths > sort_tiles ? sort_depths : sort_tiles;
    temp = c.take<uint8_t>(int64_t(most > sum ? most : sum));
    if (round == 0) memory = stream.scratch<uint8_t>(c.bytes());
  }
  if (!keep) rows_by_slot = nullptr;

  launch(name, find_depth_range, blocks_for(n), dim3(kThreads), 0, stream, a, pairs);
  launch(name, depth_keys, blocks_for(n), dim3(kThreads), 0, stream, a, grid, pairs, keys, rows);
  sort_pairs(name, temp, sort_depths, SortPairs{keys, sorted_keys, rows, pairs.order, n, kDepthBits}, stream);
  const dim3 blocks = blocks_for(n, kEmitThreads), block(kEmitThreads);
  launch(name, count_pairs, blocks, block, 0, stream, a.splats, grid, sorted_keys, pairs.order, n, totals);
  prefix_sum(name, temp, sum, totals, starts, warps, stream);
  const PairSink sink = {tiles, values, rows_by_slot, uint32_t(n_tiles)};
  launch(name, emit_pairs, blocks, block, 0, stream, a.splats, grid, pairs, sorted_keys, n, starts, sink);
  sort_pairs(name, temp, sort_tiles, SortPairs{tiles, sorted_tiles, values, keep ? pairs.slots : pairs.rows, capacity, tile_bits}, stream);
  launch(name, find_ranges, blocks_for(capacity), dim3(kThreads), 0, stream, pairs, sorted_tiles, rows_by_slot);
}

}  // namespace gaf::cuda
