// Which tiles, and in them which 4x4-pixel blocks, a splat's ellipse touches: exact up to rounding, sixteen splats at a time.
//
// A row of blocks is the slab of its four rows of pixel centres. The ellipse inside a slab spans an interval of x (math/ellipse.h), and a block
// is touched when the x of its pixel centres meets that interval: both sets are convex.
#include "cpu/rasterization.h"
#include "math/ellipse.h"
#include "transpose.h"

namespace gaf::cpu::GAF_ISA {
namespace {

using F = Lanes<float>;
constexpr int kSmall = 3;             // splats within 3x3 tiles go sixteen at a time, larger ones alone
constexpr float kSlack = float(kEllipseSlack);
constexpr float kFar = 1 << 24;       // pixels; keeps block numbers within int32

using Ellipses = Ellipse<F>;

GAF_HD Ellipses ellipses(const F* f) { return ellipse_of(f[0], f[1], Whitening<F>{f[2], f[3], f[4]}, f[5]); }

GAF_HD F clamp(F a, F lo, F hi) { return min_(max_(a, lo), hi); }

struct Span {
  Ints lo, hi;  // first and last block; empty where lo > hi
};

// Blocks touched in rows of blocks `row`, numbered from the image's left edge, kept inside [0, n_blocks).
GAF_HD Span span_of_row(const Ellipses& e, Ints row, Ints n_blocks) {
  const F top = fma_(to_float(row), F(kBlock), F(0.5f)) - e.y, bottom = top + F(kBlock - 1);
  const EllipseSpan<F> met_at = ellipse_in_slab(e, top, bottom);
  const F first = clamp((met_at.left - F(kBlock - 0.5f)) * F(1.f / kBlock), F(-kFar), F(kFar));
  const F last = clamp((met_at.right - F(0.5f)) * F(1.f / kBlock), F(-kFar), F(kFar));
  Span s;
  s.lo = -floor_int(-first);
  s.hi = floor_int(last);
  s.lo = select_(s.lo > Ints(0), s.lo, Ints(0));
  s.hi = select_(s.hi < n_blocks, s.hi, n_blocks - Ints(1));
  const auto met = as_int_mask(met_at.top <= met_at.bottom + F(kSlack));
  s.hi = select_(met, s.hi, Ints(-1));
  return s;
}

// Bits of a row's span in the tile whose first block is `start`, as a byte.
GAF_HD Ints row_bits(Span s, Ints start) {
  Ints lo = s.lo - start, hi = s.hi - start;
  lo = select_(lo > Ints(0), lo, Ints(0));
  hi = select_(hi < Ints(kTileBlocks - 1), hi, Ints(kTileBlocks - 1));
  const auto some = lo <= hi;
  lo = select_(some, lo, Ints(0));
  hi = select_(some, hi, Ints(0));
  const Ints bits = (Ints(0xff) << lo) & (Ints(0xff) >> (Ints(kTileBlocks - 1) - hi));
  return select_(some, bits, Ints(0));
}

struct Box {
  Ints x0, x1, y0, y1;  // tiles, inclusive; empty where x0 > x1 or y0 > y1
};

GAF_HD Ints tile_floor(F a, int last) {
  const Ints t = floor_int(clamp(a * F(1.f / kTile), F(-1), F(1 << 20)));
  return select_(t < Ints(last), t, Ints(last));
}

GAF_HD Box box_of(const Ellipses& e, const TileGrid& grid) {
  const F half_x = half_width(e, e.side_y) - e.slant * e.side_y + F(kSlack), half_y = e.half_height + F(kSlack);
  Box b;
  b.x0 = tile_floor(e.x - half_x, grid.tiles_x);
  b.x0 = select_(b.x0 > Ints(0), b.x0, Ints(0));
  b.x1 = tile_floor(e.x + half_x, grid.tiles_x - 1);
  b.y0 = tile_floor(e.y - half_y, grid.tiles_y);
  b.y0 = select_(b.y0 > Ints(0), b.y0, Ints(0));
  b.y1 = tile_floor(e.y + half_y, grid.tiles_y - 1);
  return b;
}

struct Sink {
  Candidate* out;
  int64_t n;
  uint32_t* tile_counts;
  GAF_HD void put(uint32_t tile, uint32_t splat, uint64_t blocks) {
    out[n++] = {tile, splat, blocks};
    ++tile_counts[tile];
  }
};

// One splat that covers many tiles: the lanes are sixteen rows of blocks, two rows of tiles.
void large_splat(const TileGrid& grid, const float* fields, const int* box, uint32_t splat, uint32_t first_tile, Sink& sink) {
  F f[6];
  for (int i = 0; i < 6; ++i) f[i] = F(fields[i]);
  const Ellipses e = ellipses(f);
  const Ints n_blocks = Ints((grid.width + kBlock - 1) / kBlock);
  const int last_row = (grid.height + kBlock - 1) / kBlock;
  for (int ty = box[2]; ty <= box[3]; ty += 2) {
    const Span s = span_of_row(e, lane_numbers<int32_t>() + Ints(ty * kTileBlocks), n_blocks);
    int lo[kLanes], hi[kLanes];
    s.lo.store(lo);
    s.hi.store(hi);
    for (int half = 0; half < 2 && ty + half <= box[3]; ++half) {
      int first = 1 << 30, last = -1;
      for (int r = 8 * half; r < 8 * half + 8; ++r) {
        if (lo[r] > hi[r] || ty * kTileBlocks + r >= last_row) {
          lo[r] = 1 << 30, hi[r] = -1;
          continue;
        }
        first = lo[r] < first ? lo[r] : first;
        last = hi[r] > last ? hi[r] : last;
      }
      for (int tx = first / kTileBlocks; tx <= last / kTileBlocks && last >= 0; ++tx) {
        uint64_t blocks = 0;
        for (int r = 0; r < 8; ++r) {
          int a = lo[8 * half + r] - 8 * tx, b = hi[8 * half + r] - 8 * tx;
          a = a > 0 ? a : 0;
          b = b < 7 ? b : 7;
          if (a <= b) blocks |= uint64_t((0xff << a) & (0xff >> (7 - b))) << (8 * r);
        }
        if (blocks) sink.put(first_tile + uint32_t(ty + half) * grid.tiles_x + tx, splat, blocks);
      }
    }
  }
}

GAF_HD int max_lane(Ints a, uint32_t active) {
  int lane[kLanes], m = -1;
  a.store(lane);
  for (int i = 0; i < kLanes; ++i) m = (active >> i & 1) && lane[i] > m ? lane[i] : m;
  return m;
}

// The blocks of the splats in `small`: masks[2 t + half] with t = 3 row + column of tiles from each splat's first.
GAF_HD void small_masks(const TileGrid& grid, const Ellipses& e, const Box& box, uint32_t small, int rows, int columns, uint32_t* masks) {
  const Ints n_blocks = Ints((grid.width + kBlock - 1) / kBlock), last_row = Ints((grid.height + kBlock - 1) / kBlock);
  for (int j = 0; j < rows; ++j) {
    Ints word[kSmall][2];
    for (int i = 0; i < columns; ++i) word[i][0] = word[i][1] = Ints(0);
    for (int r = 0; r < kTileBlocks; ++r) {
      const Ints row = (box.y0 + Ints(j)) * Ints(kTileBlocks) + Ints(r);
      const F top = to_float(row) * F(kBlock) - e.y;
      const auto near = (top < e.half_height) & (top + F(kBlock) > -e.half_height);
      if (!(near.bits() & small)) continue;
      Span s = span_of_row(e, row, n_blocks);
      s.hi = select_(row < last_row, s.hi, Ints(-1));
      for (int i = 0; i < columns; ++i) {
        const Ints bits = row_bits(s, (box.x0 + Ints(i)) * Ints(kTileBlocks));
        Ints& w = word[i][r / 4];
        w = w | (bits << Ints(8 * (r % 4)));
      }
    }
    for (int i = 0; i < columns; ++i) {
      word[i][0].store(reinterpret_cast<int32_t*>(masks) + (2 * (kSmall * j + i)) * kLanes);
      word[i][1].store(reinterpret_cast<int32_t*>(masks) + (2 * (kSmall * j + i) + 1) * kLanes);
    }
  }
}

template <class S>
GAF_HD void load_fields(const Splat<S>* splats, const uint32_t* order, int64_t i, int64_t end, F* fields) {
  const S* rows[kLanes];
  for (int k = 0; k < kLanes; ++k) rows[k] = reinterpret_cast<const S*>(splats + order[i + k < end ? i + k : end - 1]);
  if constexpr (std::is_same_v<S, float>) {
    rows_to_lanes(rows, kLanes, fields);
  } else {
    for (int j = 0; j < 6; ++j) {
      float lane[kLanes];
      for (int k = 0; k < kLanes; ++k) lane[k] = float(rows[k][j]);
      fields[j] = F::load(lane);
    }
  }
}

}  // namespace

// Appends the candidates of splats [begin, end) and moves `begin` on; stops early, at a multiple of sixteen, when `out` might overflow.
template <class S>
void find_tiles(const TileGrid& grid, CandidateRange<S>& range) {
  Sink sink = {range.out, range.n_out, range.tile_counts};
  for (; range.begin < range.end; range.begin += kLanes) {
    const int64_t left = range.end - range.begin;
    const uint32_t active = left >= kLanes ? 0xffff : (1u << left) - 1;
    F fields[kLanes];
    for (int64_t i = range.begin + kLanes; i < range.begin + 2 * kLanes && i < range.end; ++i) {
      __builtin_prefetch(range.splats + range.order[i]);
    }
    load_fields(range.splats, range.order, range.begin, range.end, fields);
    const Ellipses e = ellipses(fields);
    const Box box = box_of(e, grid);
    const Ints width = box.x1 - box.x0 + Ints(1), height = box.y1 - box.y0 + Ints(1);
    const uint32_t some = active & (width > Ints(0)).bits() & (height > Ints(0)).bits();
    const uint32_t small = some & (width <= Ints(kSmall)).bits() & (height <= Ints(kSmall)).bits();
    const uint32_t large = some & ~small;
    int b[4][kLanes];
    box.x0.store(b[0]), box.x1.store(b[1]), box.y0.store(b[2]), box.y1.store(b[3]);
    int64_t worst = int64_t(kSmall) * kSmall * kLanes;
    for (int k = 0; k < kLanes; ++k) {
      if (large >> k & 1) worst += int64_t(b[1][k] - b[0][k] + 1) * (b[3][k] - b[2][k] + 1);
    }
    if (sink.n + worst > range.capacity) break;

    const int rows = max_lane(height, small), columns = max_lane(width, small);
    alignas(64) uint32_t masks[2 * kSmall * kSmall * kLanes];
    small_masks(grid, e, box, small, rows, columns, masks);
    for (uint32_t todo = some; todo; todo &= todo - 1) {
      const int k = __builtin_ctz(todo);
      const uint32_t splat = range.order[range.begin + k];
      const uint32_t first_tile = grid.rows_per_camera ? uint32_t(splat / grid.rows_per_camera * grid.n_tiles) : 0;
      const int64_t before = sink.n;
      if (large >> k & 1) {
        float f[6];
        for (int i = 0; i < 6; ++i) {
          float lane[kLanes];
          fields[i].store(lane);
          f[i] = lane[k];
        }
        const int corners[4] = {b[0][k], b[1][k], b[2][k], b[3][k]};
        large_splat(grid, f, corners, splat, first_tile, sink);
      } else {
        const uint32_t corner = first_tile + uint32_t(b[2][k] * grid.tiles_x + b[0][k]);
        for (int j = 0; j <= b[3][k] - b[2][k]; ++j) {
          for (int i = 0; i <= b[1][k] - b[0][k]; ++i) {
            const uint32_t* m = masks + 2 * (kSmall * j + i) * kLanes + k;
            const uint64_t blocks = m[0] | uint64_t(m[kLanes]) << 32;
            if (blocks) sink.put(corner + j * grid.tiles_x + i, splat, blocks);
          }
        }
      }
      range.splat_counts[splat] = uint32_t(sink.n - before);
    }
  }
  if (range.begin > range.end) range.begin = range.end;
  range.n_out = sink.n;
}

template void find_tiles(const TileGrid&, CandidateRange<Number>&);

}  // namespace gaf::cpu::GAF_ISA
