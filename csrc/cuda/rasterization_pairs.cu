// The (splat, tile) pairs of an image: how many each tile has, where each tile's begin, and the pairs themselves, which a block a tile then sorts.
// Blocks count in shared memory, and ask for places once a tile; the splats' tiles are found twice, for counting and for writing.
#include "device/ellipse_tiles.h"
#include "device/reduce.h"
#include "rasterization.h"

namespace gaf::cuda {
namespace {

constexpr int kPairThreads = 512;
constexpr int kPairWarps = kPairThreads / kWarp;
constexpr int kPairBlocks = 256;  // of all cameras, and at most one more a camera; beyond, warps take several groups
constexpr int kWindow = 8192;     // tiles that a block counts pairs of: 32 KiB, a frame of 1920x1080
constexpr int kSumItems = 4;      // of a thread
constexpr int kSumBlock = kThreads * kSumItems;

// Who finds which pairs. A group is 32 splats that follow each other. A block takes a run of groups of one camera, a warp a group at a time.
struct PairWork {
  uint32_t groups, blocks;  // of a camera
  uint32_t groups_per_block;
};

PairWork pair_work(const TileGrid& grid, int64_t n_cameras) {
  const int64_t groups = (grid.rows_per_camera + kWarp - 1) / kWarp, at_once = kPairBlocks * kPairWarps;
  const int64_t rounds = (n_cameras * groups + at_once - 1) / at_once, per_block = (rounds > 0 ? rounds : 1) * kPairWarps;
  return {uint32_t(groups), uint32_t((groups + per_block - 1) / per_block), uint32_t(per_block)};
}

// What a block has to do: as many blocks as there are windows of tiles (y) take the same splats (x, cameras included).
struct BlockWork {
  uint32_t camera, group, end;   // the warp's first group, and where the block's end
  uint32_t first_tile, n_tiles;  // of the window; the first with the tiles of cameras before this one

  __device__ __forceinline__ BlockWork(const PairWork& work, const TileGrid& grid) : camera(blockIdx.x / work.blocks) {
    const uint32_t begin = blockIdx.x % work.blocks * work.groups_per_block, window = blockIdx.y * kWindow;
    group = begin + uint32_t(warp_index());
    end = min(begin + work.groups_per_block, work.groups);
    first_tile = camera * uint32_t(grid.n_tiles) + window;
    n_tiles = min(uint32_t(grid.n_tiles) - window, uint32_t(kWindow));
  }

  // Splats, their slots and how many are visible belong to the first window's block.
  __device__ __forceinline__ bool has_splats() const { return blockIdx.y == 0; }

  // Of [blocks, tiles of a camera].
  __device__ __forceinline__ int64_t first_claim(const TileGrid& grid) const { return blockIdx.x * grid.n_tiles + blockIdx.y * kWindow; }
};

// A lane's splat of its warp's group.
struct LaneSplat {
  int64_t at;    // in arrays [C, N]
  uint32_t row;  // rows follow each other within a group, up to the camera's last
  bool in_camera, in_arrays, visible;

  __device__ __forceinline__ LaneSplat(const RasterizationBlendArgs<float>& a, const TileGrid& grid, uint32_t camera, uint32_t group) {
    const uint32_t i = group * kWarp + uint32_t(lane_index());
    at = camera * a.n_gaussians + i;
    row = camera * uint32_t(grid.rows_per_camera) + i;
    in_camera = i < grid.rows_per_camera;
    in_arrays = i < a.n_gaussians;
    visible = in_arrays && a.radii[2 * at] > 0;
  }
};

constexpr int kAtOnce = 4;  // tiles of a thread that it waits for together

// Makes places for a block's pairs among those of each tile, and writes down how many of the tile's lie before them. This is where blocks meet,
// so a block asks once a tile, and for neighbouring tiles at once: an atomic addition a pair kept all blocks waiting for the few tiles of a head.
__device__ __forceinline__ void claim_places(const BlockWork& mine, const TileGrid& grid, const uint32_t* counts, uint2* tile_range, uint32_t* claims) {
  for (uint32_t first = threadIdx.x; first < mine.n_tiles; first += kAtOnce * kPairThreads) {
    uint32_t before[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const uint32_t t = first + k * kPairThreads, count = t < mine.n_tiles ? counts[t] : 0;
      before[k] = count > 0 ? atomicAdd(&tile_range[mine.first_tile + t].y, count) : 0;
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const uint32_t t = first + k * kPairThreads;
      if (t < mine.n_tiles) claims[mine.first_claim(grid) + t] = before[k];
    }
  }
}

// The place of a block's next pair of each tile.
__device__ __forceinline__ void load_places(const BlockWork& mine, const TileGrid& grid, const uint2* tile_range, const uint32_t* claims, uint32_t* places) {
  for (uint32_t first = threadIdx.x; first < mine.n_tiles; first += kAtOnce * kPairThreads) {
    uint32_t place[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const uint32_t t = first + k * kPairThreads;
      place[k] = t < mine.n_tiles ? tile_range[mine.first_tile + t].x + claims[mine.first_claim(grid) + t] : 0;
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      const uint32_t t = first + k * kPairThreads;
      if (t < mine.n_tiles) places[t] = place[k];
    }
  }
}

// Pairs of each tile, of each group where its pairs get slots, and visible splats.
__global__ void __launch_bounds__(kPairThreads, 3) count_pairs(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, PairWork work,
                                                               uint32_t* group_slots, uint32_t* claims) {
  GAF_SHARED_DYNAMIC(uint32_t, counts);  // [tiles of the window]
  GAF_SHARED(int, n_visible);
  const BlockWork mine(work, grid);
  for (uint32_t t = threadIdx.x; t < mine.n_tiles; t += kPairThreads) counts[t] = 0;
  if (threadIdx.x == 0) n_visible = 0;
  __syncthreads();
#pragma unroll 1
  for (uint32_t group = mine.group; group < mine.end; group += kPairWarps) {
    const LaneSplat splat(a, grid, mine.camera, group);
    const WarpTiles tiles(a.splats, grid, mine.camera, splat.row, splat.in_camera, splat.visible);
    const int n = __popc(__ballot_sync(kFullMask, splat.visible));
    if (lane_index() == 0) atomicAdd(&n_visible, n);
    uint32_t total = 0;
    for (int item = 0; item < tiles.n_items; item += kWarp) {
      const TileSpan span = tiles.span(grid, item + lane_index());
      const SpanPairs numbers = number_pairs(span);
      for_each_pair(span, numbers, [&](uint32_t, int, uint32_t tile, bool is_pair) {
        const uint32_t t = tile - mine.first_tile;
        if (is_pair && t < mine.n_tiles) atomicAdd(&counts[t], 1u);
      });
      total += numbers.n;
    }
    if (lane_index() == 0 && group_slots && mine.has_splats()) group_slots[int64_t(mine.camera) * work.groups + group] = total;
  }
  __syncthreads();
  claim_places(mine, grid, counts, pairs.tile_range, claims);
  if (threadIdx.x > 0 || n_visible == 0 || !mine.has_splats()) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(pairs.counts), (unsigned long long)(n_visible));
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
  uint32_t* group_slots;     // [groups] in: pairs; out: slot of the first, on top of the number of pairs; null when nothing is kept
  int64_t n_tiles, n_groups;
};

// Prefix sums over the tiles' pairs and, after them, the groups': a tile gets its places, a group its first slot. Slots follow the rows of
// splats; all that matters is that a splat's lie side by side, in an order that does not change.
__global__ void __launch_bounds__(kThreads) sum_counts(Pairs pairs, CountSums c, int64_t* statistics) {
  GAF_SHARED(int64_t, block);
  GAF_SHARED(unsigned long long, parts, [kThreads / kWarp]);
  if (threadIdx.x == 0) block = int64_t(atomicAdd(c.sums, 1ull));
  __syncthreads();
  const int64_t first = block * kSumBlock + threadIdx.x * kSumItems;
  uint32_t counts[kSumItems], n_long = 0;
  unsigned long long own = 0;
#pragma unroll
  for (int k = 0; k < kSumItems; ++k) {
    const int64_t i = first + k, group = i - c.n_tiles;
    counts[k] = group < 0 ? pairs.tile_range[i].y : group < c.n_groups ? c.group_slots[group] : 0;
    own += counts[k];
    n_long += group < 0 && counts[k] > kShortList;
  }
  n_long = warp_sum(n_long);
  if (lane_index() == 0 && n_long > 0) atomicAdd(pairs.n_long, n_long);
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
    const int64_t i = first + k, group = i - c.n_tiles;
    if (group < 0) {
      pairs.tile_range[i] = {uint32_t(sum), uint32_t(sum) + counts[k]};  // numbers that do not fit are not used
    } else if (group < c.n_groups) {
      c.group_slots[group] = uint32_t(sum);
    }
    sum += counts[k];
    if (group != -1) continue;
    pairs.counts[1] = statistics[1] = int64_t(sum);
    statistics[0] = pairs.counts[0];
    statistics[2] = 0;
  }
}

// Every tile's pairs: those of a block side by side, otherwise in whatever order they come.
__global__ void __launch_bounds__(kPairThreads, 2) emit_pairs(RasterizationBlendArgs<float> a, TileGrid grid, Pairs pairs, PairWork work,
                                                              const uint32_t* group_slots, const uint32_t* claims, PairKeys keys) {
  GAF_SHARED_DYNAMIC(uint32_t, places);  // [tiles of the window]
  const BlockWork mine(work, grid);
  const int64_t n_pairs = pairs.counts[1];
  load_places(mine, grid, pairs.tile_range, claims, places);  // before it is known whether they are used: one wait less
  if (n_pairs > pairs.capacity) return;
  __syncthreads();
#pragma unroll 1
  for (uint32_t group = mine.group; group < mine.end; group += kPairWarps) {
    const LaneSplat splat(a, grid, mine.camera, group);
    const WarpTiles tiles(a.splats, grid, mine.camera, splat.row, splat.in_camera, splat.visible);
    const uint32_t depth = splat.in_arrays ? __float_as_uint(a.depths[splat.at]) : 0, first_row = splat.row - uint32_t(lane_index());
    const bool writes_slots = pairs.slots && mine.has_splats();
    uint32_t slot = pairs.slots ? group_slots[int64_t(mine.camera) * work.groups + group] - uint32_t(n_pairs) : 0;
    if (writes_slots && splat.in_camera && !tiles.has_rows()) pairs.first_slot[splat.row] = pairs.end_slot[splat.row] = 0;
    for (int base = 0; base < tiles.n_items; base += kWarp) {
      const int item = base + lane_index();
      const TileSpan span = tiles.span(grid, item);
      const SpanPairs numbers = number_pairs(span);
      if (writes_slots && item < tiles.n_items) {
        if (span.is_first) pairs.first_slot[first_row + span.owner] = slot + numbers.before;
        if (span.is_last) pairs.end_slot[first_row + span.owner] = slot + numbers.before + uint32_t(span.count());
      }
      for_each_pair(span, numbers, [&](uint32_t j, int owner, uint32_t tile, bool is_pair) {
        const uint32_t depth_of_owner = __shfl_sync(kFullMask, depth, owner), row = first_row + uint32_t(owner), t = tile - mine.first_tile;
        if (!is_pair || t >= mine.n_tiles) return;
        keys.keys[atomicAdd(&places[t], 1u)] = pair_key(depth_of_owner, pairs.slots ? slot + j : row);
        if (pairs.slots) keys.rows_by_slot[slot + j] = row;
      });
      slot += numbers.n;
    }
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
  PairWork work;
  int64_t n_groups;          // whose pairs get slots: 0 when nothing is kept
  int64_t zero_bytes, bytes;
};

Layout layout(uint8_t* memory, const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep) {
  const TileGrid grid = tile_grid(a.width, a.height, a.n_gaussians);
  const int64_t n_tiles = a.n_cameras * grid.n_tiles, n_rows = a.n_cameras * grid.rows_per_camera, n_buckets = capacity / kBucket + 1;
  const int64_t channels = a.n_channels < kSplatChannels ? a.n_channels : kSplatChannels;
  Carver c(memory);
  Layout l;
  l.work = pair_work(grid, a.n_cameras);
  l.n_groups = keep ? a.n_cameras * l.work.groups : 0;
  l.pairs.capacity = capacity;
  l.pairs.counts = c.take<int64_t>(2);
  l.pairs.n_long = c.take<uint32_t>(3);
  l.pairs.n_pieces = l.pairs.n_long + 2;
  l.sums = c.take<unsigned long long>(1 + (n_tiles + l.n_groups + kSumBlock - 1) / kSumBlock);
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

Pieces carve_pieces(Carver& c, const RasterizationBlendArgs<float>& a, int64_t capacity) {
  const int64_t n = capacity / kBucket, planes = 1 + (a.n_channels < kSplatChannels ? a.n_channels : kSplatChannels);
  Pieces p;
  p.list = c.take<Piece>(n);
  p.states = c.take<float>(n * planes * kTilePixels);
  return p;
}

}  // namespace

int64_t pairs_bytes(const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep) { return layout(nullptr, a, capacity, keep).bytes; }

Pairs pairs_in(uint8_t* memory, const RasterizationBlendArgs<float>& a, int64_t capacity, bool keep) {
  return layout(memory, a, capacity, keep).pairs;
}

int64_t pieces_bytes(const RasterizationBlendArgs<float>& a, int64_t capacity) {
  Carver c(nullptr);
  carve_pieces(c, a, capacity);
  return c.bytes();
}

Pieces pieces_in(uint8_t* memory, const RasterizationBlendArgs<float>& a, int64_t capacity) {
  Carver c(memory);
  return carve_pieces(c, a, capacity);
}

uint8_t* find_pairs(const RasterizationBlendArgs<float>& a, const TileGrid& grid, const Pairs& pairs, Stream stream) {
  const bool keep = pairs.slots != nullptr;
  const Layout l = layout(reinterpret_cast<uint8_t*>(pairs.counts), a, pairs.capacity, keep);
  fill_bytes(kBlendFwd, pairs.counts, 0, size_t(l.zero_bytes), stream);
  const int64_t n_tiles = a.n_cameras * grid.n_tiles, n = a.n_cameras * a.n_gaussians;
  if (n_tiles == 0) {
    fill_bytes(kBlendFwd, a.statistics, 0, 3 * sizeof(int64_t), stream);
    return nullptr;
  }

  // Without room for the pairs the same memory holds a key for every splat.
  const int64_t n_keys = pairs.capacity > n ? pairs.capacity : n;
  uint8_t* memory = nullptr;
  PairKeys keys;
  uint32_t *group_slots, *claims;
  const int64_t n_blocks = a.n_cameras * l.work.blocks;
  for (int round = 0; round < 2; ++round) {  // the first counts bytes
    Carver c(memory);
    keys.keys = c.take<uint64_t>(n_keys), keys.more = c.take<uint64_t>(n_keys);
    keys.rows_by_slot = c.take<uint32_t>(keep ? pairs.capacity : 0);
    keys.long_lists = c.take<uint32_t>(n_tiles);
    group_slots = c.take<uint32_t>(l.n_groups);
    claims = c.take<uint32_t>(n_blocks * grid.n_tiles);
    const int64_t pieces = pieces_bytes(a, pairs.capacity);
    if (round == 0) memory = stream.scratch<uint8_t>(c.bytes() > pieces ? c.bytes() : pieces);
  }
  if (!keep) group_slots = nullptr;

  const dim3 pair_grid(unsigned(n_blocks), unsigned((grid.n_tiles + kWindow - 1) / kWindow)), pair_block(kPairThreads);
  const size_t counters = sizeof(uint32_t) * size_t(grid.n_tiles < kWindow ? grid.n_tiles : kWindow);
  launch(kBlendFwd, count_pairs, pair_grid, pair_block, counters, stream, a, grid, pairs, l.work, group_slots, claims);
  launch(kBlendFwd, sum_counts, blocks_for(n_tiles + l.n_groups, kSumBlock), dim3(kThreads), 0, stream, pairs,
         CountSums{l.sums, group_slots, n_tiles, l.n_groups}, a.statistics);
  launch(kBlendFwd, emit_pairs, pair_grid, pair_block, counters, stream, a, grid, pairs, l.work, group_slots, claims, keys);
  sort_tile_lists(a, grid, pairs, keys, stream);
  return memory;
}

}  // namespace gaf::cuda
