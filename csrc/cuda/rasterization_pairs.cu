// The (splat, tile) pairs of an image: how many each tile has, where each tile's begin, and the pairs themselves, which a block a tile then sorts.
#include "device/ellipse_tiles.h"
#include "device/reduce.h"
#include "rasterization.h"

namespace gaf::cuda {
namespace {

constexpr int kPairThreads = 128;
constexpr int kPairWarps = kPairThreads / kWarp;
constexpr int kSumItems = 4;  // of a thread
constexpr int kSumBlock = kThreads * kSumItems;

// The 32 splats of a warp. Blocks do not go from one camera to the next.
struct LaneSplat {
  int64_t camera, warp;  // number of the warp, cameras included
  int64_t at;            // in arrays [C, N]
  uint32_t row;          // rows follow each other within a warp, up to the camera's last
  bool in_camera, visible;

  __device__ __forceinline__ LaneSplat(const RasterizationBlendArgs<float>& a, const TileGrid& grid, uint32_t blocks) {
    const uint32_t c = blockIdx.x / blocks, i = blockIdx.x % blocks * kPairThreads + threadIdx.x;
    camera = c;
    warp = int64_t(blockIdx.x) * kPairWarps + warp_index();
    at = camera * a.n_gaussians + i;
    row = uint32_t(camera * grid.rows_per_camera + i);
    in_camera = i < grid.rows_per_camera;
    visible = i < a.n_gaussians && a.radii[2 * at] > 0;
  }
};

inline uint32_t pair_blocks(const TileGrid& grid) { return uint32_t((grid.rows_per_camera + kPairThreads - 1) / kPairThreads); }

// Pairs of each tile, of each warp where its pairs get slots, and visible splats.
__global__ void __launch_bounds__(kPairThreads) count_pairs(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, uint32_t blocks,
                                                            uint32_t* warp_slots) {
  const LaneSplat splat(a, grid, blocks);
  const WarpTiles tiles(a.splats, grid, splat.camera, splat.row, splat.visible);
  uint32_t total = 0;
  for (int item = 0; item < tiles.n_items; item += kWarp) {
    const TileSpan span = tiles.span(grid, item + lane_index());
    const SpanPairs numbers = number_pairs(span);
    for_each_pair(span, numbers, [&](uint32_t, int, uint32_t tile, bool is_pair) {
      if (is_pair) atomicAdd(&pairs.tile_range[tile].y, 1u);
    });
    total += numbers.n;
  }
  if (warp_slots && lane_index() == 0) warp_slots[splat.warp] = total;
  const int n_visible = __syncthreads_count(splat.visible);
  if (threadIdx.x == 0 && n_visible > 0) atomicAdd(reinterpret_cast<unsigned long long*>(pairs.counts), (unsigned long long)(n_visible));
}

// The sums of all blocks of `sum_counts`, in memory that begins as zeros: a ticket, then a number a block, whose upper two bits say which sum it is.
constexpr unsigned long long kOwnSum = 1ull << 62, kWholeSum = 2ull << 62, kSumBits = kOwnSum - 1;

// Sum of the blocks before this one, for which nobody waits in vain: blocks are numbered by when they begin. All 32 lanes of a warp must call.
__device__ __forceinline__ unsigned long long sum_before(unsigned long long* sums, int64_t block) {
  unsigned long long sum = 0;
  for (int64_t nearest = block - 1; nearest >= 0; nearest -= kWarp) {
    const int64_t at = nearest - lane_index();
    unsigned long long word = at < 0 ? kWholeSum : 0;
    while (word == 0) word = atomicAdd(sums + at, 0ull);
    const unsigned whole = __ballot_sync(kFullMask, word >= kWholeSum);
    const int last = whole ? __ffs(int(whole)) - 1 : kWarp - 1;  // the nearest whole sum has all that lies before it
    sum += warp_sum(lane_index() <= last ? word & kSumBits : 0ull);
    if (whole) break;
  }
  return sum;
}

struct CountSums {
  unsigned long long* sums;  // [1 + blocks]
  uint32_t* warp_slots;      // [warps] in: pairs; out: slot of the first, on top of the number of pairs; null when nothing is kept
  int64_t n_tiles, n_warps;
};

// Prefix sums over the tiles' pairs and, after them, the warps': a tile gets its first place, a warp its first slot. Slots follow the rows of
// splats; all that matters is that a splat's lie side by side, in an order that does not change.
__global__ void __launch_bounds__(kThreads) sum_counts(Pairs pairs, CountSums c, int64_t* statistics) {
  GAF_SHARED(int64_t, block);
  GAF_SHARED(unsigned long long, parts, [kThreads / kWarp]);
  if (threadIdx.x == 0) block = int64_t(atomicAdd(c.sums, 1ull));
  __syncthreads();
  const int64_t first = block * kSumBlock + threadIdx.x * kSumItems;
  uint32_t counts[kSumItems];
  unsigned long long own = 0;
#pragma unroll
  for (int k = 0; k < kSumItems; ++k) {
    const int64_t i = first + k, warp = i - c.n_tiles;
    counts[k] = warp < 0 ? pairs.tile_range[i].y : warp < c.n_warps ? c.warp_slots[warp] : 0;
    own += counts[k];
  }
  const unsigned long long upto = warp_inclusive_sum(own);
  if (lane_index() == kWarp - 1) parts[warp_index()] = upto;
  __syncthreads();
  if (warp_index() == 0) {
    const unsigned long long part = lane_index() < kThreads / kWarp ? parts[lane_index()] : 0, sum = warp_inclusive_sum(part);
    const unsigned long long total = __shfl_sync(kFullMask, sum, kWarp - 1);
    unsigned long long* mine = c.sums + 1 + block;
    if (lane_index() == 0 && block > 0) atomicExch(mine, kOwnSum | total);
    const unsigned long long before = sum_before(c.sums + 1, block);
    if (lane_index() == 0) atomicExch(mine, kWholeSum | (before + total));
    if (lane_index() < kThreads / kWarp) parts[lane_index()] = before + sum - part;
  }
  __syncthreads();
  unsigned long long sum = parts[warp_index()] + upto - own;
#pragma unroll
  for (int k = 0; k < kSumItems; ++k) {
    const int64_t i = first + k, warp = i - c.n_tiles;
    if (warp < 0) {
      pairs.tile_range[i] = {uint32_t(sum), uint32_t(sum)};  // pairs come in by counting the end up; numbers that do not fit are not used
    } else if (warp < c.n_warps) {
      c.warp_slots[warp] = uint32_t(sum);
    }
    sum += counts[k];
    if (warp != -1) continue;
    pairs.counts[1] = statistics[1] = int64_t(sum);
    statistics[0] = pairs.counts[0];
    statistics[2] = 0;
  }
}

// Every tile's pairs in whatever order they come.
__global__ void __launch_bounds__(kPairThreads) emit_pairs(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, uint32_t blocks,
                                                           const uint32_t* warp_slots, PairKeys keys) {
  if (too_many(pairs)) return;
  const LaneSplat splat(a, grid, blocks);
  const WarpTiles tiles(a.splats, grid, splat.camera, splat.row, splat.visible);
  const uint32_t depth = splat.visible ? __float_as_uint(a.depths[splat.at]) : 0, first_row = splat.row - uint32_t(lane_index());
  uint32_t slot = pairs.slots ? warp_slots[splat.warp] - uint32_t(pairs.counts[1]) : 0;
  if (pairs.slots && splat.in_camera && !tiles.has_rows()) pairs.first_slot[splat.row] = pairs.end_slot[splat.row] = 0;
  for (int base = 0; base < tiles.n_items; base += kWarp) {
    const int item = base + lane_index();
    const TileSpan span = tiles.span(grid, item);
    const SpanPairs numbers = number_pairs(span);
    if (pairs.slots && item < tiles.n_items) {
      if (span.is_first) pairs.first_slot[first_row + span.owner] = slot + numbers.before;
      if (span.is_last) pairs.end_slot[first_row + span.owner] = slot + numbers.before + uint32_t(span.count());
    }
    for_each_pair(span, numbers, [&](uint32_t j, int owner, uint32_t tile, bool is_pair) {
      const uint32_t depth_of_owner = __shfl_sync(kFullMask, depth, owner), row = first_row + uint32_t(owner);
      if (!is_pair) return;
      const uint32_t place = atomicAdd(&pairs.tile_range[tile].y, 1u);
      keys.keys[place] = pair_key(depth_of_owner, pairs.slots ? slot + j : row);
      if (pairs.slots) keys.rows_by_slot[slot + j] = row;
    });
    slot += numbers.n;
  }
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

// The arrays that must be zero come first.
struct Layout {
  Pairs pairs;
  unsigned long long* sums;  // of `sum_counts`
  int64_t n_warps;           // whose pairs get slots: 0 when nothing is kept
  int64_t zero_bytes, bytes;
};

Layout layout(uint8_t* memory, const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep) {
  const TileGrid grid = tile_grid(a.width, a.height, a.n_gaussians);
  const int64_t n_tiles = a.n_cameras * grid.n_tiles, n_rows = a.n_cameras * grid.rows_per_camera, n_buckets = capacity / kBucket + 1;
  const int64_t channels = a.n_channels < kSplatChannels ? a.n_channels : kSplatChannels;
  Carver c(memory);
  Layout l;
  l.n_warps = keep ? a.n_cameras * pair_blocks(grid) * kPairWarps : 0;
  l.pairs.capacity = capacity;
  l.pairs.counts = c.take<int64_t>(2);
  l.sums = c.take<unsigned long long>(1 + (n_tiles + l.n_warps + kSumBlock - 1) / kSumBlock);
  l.pairs.tile_range = c.take<uint2>(n_tiles);
  l.zero_bytes = c.bytes();
  l.pairs.first_slot = c.take<uint32_t>(keep ? n_rows : 0);
  l.pairs.end_slot = c.take<uint32_t>(keep ? n_rows : 0);
  l.pairs.bucket_tile = c.take<int32_t>(keep ? n_buckets : 0);
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
  const bool keep = pairs.slots != nullptr;
  const Layout l = layout(reinterpret_cast<uint8_t*>(pairs.counts), a, pairs.capacity, keep);
  fill_bytes(kBlendFwd, pairs.counts, 0, size_t(l.zero_bytes), stream);
  const int64_t n_tiles = a.n_cameras * grid.n_tiles, n = a.n_cameras * a.n_gaussians;
  if (n_tiles == 0) return fill_bytes(kBlendFwd, a.statistics, 0, 3 * sizeof(int64_t), stream);

  // Without room for the pairs the same memory holds a key for every splat.
  const int64_t n_keys = pairs.capacity > n ? pairs.capacity : n;
  uint8_t* memory = nullptr;
  PairKeys keys;
  uint32_t* warp_slots;
  for (int round = 0; round < 2; ++round) {  // the first counts bytes
    Carver c(memory);
    keys.keys = c.take<uint64_t>(n_keys), keys.more = c.take<uint64_t>(n_keys);
    keys.rows_by_slot = c.take<uint32_t>(keep ? pairs.capacity : 0);
    warp_slots = c.take<uint32_t>(l.n_warps);
    if (round == 0) memory = stream.scratch<uint8_t>(c.bytes());
  }
  if (!keep) warp_slots = nullptr;

  const uint32_t blocks = pair_blocks(grid);
  const dim3 pair_grid(unsigned(a.n_cameras * blocks)), pair_block(kPairThreads);
  launch(kBlendFwd, count_pairs, pair_grid, pair_block, 0, stream, a, grid, pairs, blocks, warp_slots);
  launch(kBlendFwd, sum_counts, blocks_for(n_tiles + l.n_warps, kSumBlock), dim3(kThreads), 0, stream, pairs,
         CountSums{l.sums, warp_slots, n_tiles, l.n_warps}, a.statistics);
  launch(kBlendFwd, emit_pairs, pair_grid, pair_block, 0, stream, a, grid, pairs, blocks, warp_slots, keys);
  sort_tile_lists(a, grid, pairs, keys, stream);
}

}  // namespace gaf::cuda
