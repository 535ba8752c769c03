#include "rasterization_pairs.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "isa.h"
#include "parallel.h"
#include "radix_sort.h"

namespace gaf::cpu {
namespace {

constexpr int64_t kRowsAtOnce = 8192;
constexpr int64_t kSplatsAtOnce = 2048;  // of a chunk at least; each chunk has a count for every tile

template <class T>
using Key = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

struct Order {
  Scratch memory;         // uint32 [n]
  int64_t n = 0;
};

// Rows of the visible splats, nearest first, equal depths in the order given. Positive floats order as their bits do.
template <class T>
Order depth_order(const RasterizationBlendArgs<T>& a, const TileGrid& grid, int threads) {
  using K = Key<T>;
  struct Part {
    int64_t n;
    K low, high;
  };
  const int64_t total = a.n_cameras * a.n_gaussians, parts = (total + kRowsAtOnce - 1) / kRowsAtOnce;
  Scratch items = scratch_of<Keyed<K>>(total), spare = scratch_of<Keyed<K>>(total);
  std::vector<Part> part(parts);
  parallel_for(parts, 1, threads, [&](int64_t p, int64_t, int) {
    Part found = {0, std::numeric_limits<K>::max(), 0};
    Keyed<K>* out = spare.as<Keyed<K>>() + p * kRowsAtOnce;
    for (int64_t i = p * kRowsAtOnce; i < std::min(total, (p + 1) * kRowsAtOnce); ++i) {
      if (a.radii[2 * i] <= 0) continue;
      const K key = std::bit_cast<K>(a.depths[i]);
      const int64_t camera = a.n_cameras == 1 ? 0 : i / a.n_gaussians;
      out[found.n++] = {key, uint32_t(i + camera * (grid.rows_per_camera - a.n_gaussians))};
      found.low = std::min(found.low, key);
      found.high = std::max(found.high, key);
    }
    part[p] = found;
  });
  Order order;
  K low = std::numeric_limits<K>::max(), high = 0;
  std::vector<int64_t> start(parts);
  for (int64_t p = 0; p < parts; ++p) {
    start[p] = order.n;
    order.n += part[p].n;
    low = std::min(low, part[p].low);
    high = std::max(high, part[p].high);
  }
  parallel_for(parts, 1, threads, [&](int64_t p, int64_t, int) {
    std::copy_n(spare.as<Keyed<K>>() + p * kRowsAtOnce, part[p].n, items.as<Keyed<K>>() + start[p]);
  });
  const Keyed<K>* sorted = order.n ? radix_sort(items.as<Keyed<K>>(), spare.as<Keyed<K>>(), order.n, low, high, threads) : nullptr;
  order.memory = scratch_of<uint32_t>(order.n);
  uint32_t* rows = order.memory.template as<uint32_t>();
  parallel_for(order.n, kRowsAtOnce, threads, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) rows[i] = sorted[i].value;
  });
  return order;
}

// Candidates of a run of splats; grows as needed.
struct CandidateList {
  Scratch memory;
  int64_t n = 0;
};

template <class T>
CandidateList candidates_of(const RasterizationBlendArgs<T>& a, const TileGrid& grid, const uint32_t* order, int64_t begin, int64_t end,
                            uint32_t* tile_counts, uint32_t* splat_counts) {
  const int64_t worst = kSplatGroup * (grid.n_tiles + 16);  // of one step of find_tiles
  int64_t capacity = 4 * (end - begin) + worst;
  CandidateList list{scratch_of<Candidate>(capacity), 0};
  CandidateRange<T> range{reinterpret_cast<const Splat<T>*>(a.splats), order, begin, end, list.memory.as<Candidate>(), 0, capacity,
                          tile_counts, splat_counts};
  for (;;) {
    GAF_DISPATCH_NUMBER(T, find_tiles<T>)(grid, range);
    if (range.begin >= range.end) break;
    capacity = 2 * capacity + worst;
    Scratch larger = scratch_of<Candidate>(capacity);
    std::memcpy(larger.as<Candidate>(), range.out, range.n_out * sizeof(Candidate));
    list.memory = std::move(larger);
    range.out = list.memory.as<Candidate>();
    range.capacity = capacity;
  }
  list.n = range.n_out;
  return list;
}

}  // namespace

TileGrid tile_grid(int64_t width, int64_t height, int64_t n_gaussians) {
  TileGrid g;
  g.width = int(width);
  g.height = int(height);
  g.tiles_x = int((width + kTile - 1) / kTile);
  g.tiles_y = int((height + kTile - 1) / kTile);
  g.n_tiles = int64_t(g.tiles_x) * g.tiles_y;
  g.rows_per_camera = groups_of(n_gaussians) * kSplatGroup;
  return g;
}

size_t Kept::bytes(const KeptHeader& h) { return 64 + h.n_pairs * sizeof(Pair) + 8 * (2 * h.n_tiles + 1 + h.n_rows + 1); }

template <class T>
Scratch find_pairs(const RasterizationBlendArgs<T>& a, const TileGrid& grid, int threads) {
  const int64_t n_tiles = a.n_cameras * grid.n_tiles, n_rows = a.n_cameras * grid.rows_per_camera;
  constexpr int64_t kMany = std::numeric_limits<uint32_t>::max();
  if (n_tiles > kMany || n_rows > kMany) {
    throw std::invalid_argument("rasterization: cameras x Gaussians and cameras x tiles must each be below 2^32, got " +
                                std::to_string(n_rows) + " and " + std::to_string(n_tiles) + "; render fewer cameras at a time");
  }
  const Order order = depth_order(a, grid, threads);

  // Each chunk of splats, nearest first, finds its candidates and counts them by tile.
  const int64_t chunks = std::clamp<int64_t>(order.n / kSplatsAtOnce, 1, 4 * threads), size = (order.n + chunks - 1) / chunks;
  std::vector<CandidateList> lists(chunks);
  Scratch counts = scratch_of<uint32_t>(chunks * n_tiles), splat_counts = scratch_of<uint32_t>(n_rows);
  std::memset(counts.as(), 0, chunks * n_tiles * sizeof(uint32_t));
  std::memset(splat_counts.as(), 0, n_rows * sizeof(uint32_t));
  parallel_for(chunks, 1, threads, [&](int64_t c, int64_t, int) {
    lists[c] = candidates_of(a, grid, order.memory.template as<uint32_t>(), std::min(c * size, order.n), std::min((c + 1) * size, order.n),
                             counts.as<uint32_t>() + c * n_tiles, splat_counts.as<uint32_t>());
  });
  KeptHeader header{0, n_tiles, n_rows};
  for (const CandidateList& l : lists) header.n_pairs += l.n;
  Scratch memory(Kept::bytes(header));
  Kept kept(memory.as());
  std::memset(memory.as(), 0, 64);
  kept.header() = header;

  int64_t slot = 0;
  for (int64_t r = 0; r < n_rows; ++r) {
    kept.first_slot()[r] = slot;
    slot += splat_counts.as<uint32_t>()[r];
  }
  kept.first_slot()[n_rows] = slot;

  // Where each chunk's pairs of each tile go: tile after tile, there chunk after chunk.
  Scratch starts = scratch_of<int64_t>(chunks * n_tiles);
  int64_t* start = starts.as<int64_t>();
  int64_t sum = 0;
  for (int64_t t = 0; t < n_tiles; ++t) {
    kept.tile_begin()[t] = sum;
    for (int64_t c = 0; c < chunks; ++c) {
      start[c * n_tiles + t] = sum;
      sum += counts.as<uint32_t>()[c * n_tiles + t];
    }
  }
  kept.tile_begin()[n_tiles] = sum;
  parallel_for(chunks, 1, threads, [&](int64_t c, int64_t, int) {
    const Candidate* list = lists[c].memory.template as<Candidate>();
    Pair* pairs = kept.pairs();
    const int64_t* first_slot = kept.first_slot();
    uint32_t slot = 0;
    for (int64_t i = 0; i < lists[c].n; ++i) {
      slot = i && list[i].splat == list[i - 1].splat ? slot + 1 : uint32_t(first_slot[list[i].splat]);
      pairs[start[c * n_tiles + list[i].tile]++] = {list[i].splat, slot, list[i].blocks};
    }
  });
  a.statistics[0] = order.n;
  a.statistics[1] = header.n_pairs;
  return memory;
}

template Scratch find_pairs(const RasterizationBlendArgs<float>&, const TileGrid&, int);
template Scratch find_pairs(const RasterizationBlendArgs<double>&, const TileGrid&, int);

}  // namespace gaf::cpu
